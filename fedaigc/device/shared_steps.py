"""The shared steps of a group: the same computation on an edge server and on a helper device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fedaigc.device.replies import SharedSteps
from fedaigc.diffusion.adapters.stages import run_stages
from fedaigc.diffusion.conditioning import placed
from fedaigc.diffusion.handoff.packing import Handoff, check_handoff, pack
from fedaigc.diffusion.sampling.segment import DenoiserCount, DenoisingState, initial_state
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.wireless.number_format import FormatName

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Line:
    """Shared steps on one prompt, which continue those of another line.

    Attributes:
        prompt: Public prompt of these steps.
        start: Step of the other line from which they continue.
        stops: Ascending steps before which the state is packed, the last one the end of the line.
        parent: Number of the other line; 0 is the one that begins with the noise.
    """

    prompt: str
    start: int
    stops: tuple[int, ...]
    parent: int = 0


def run_shared_steps(
    pipe: "DiffusionPipeline",
    group_prompt: str,
    plan: DenoisingPlan,
    stop: int,
    *,
    noise_seed: int,
    handoff: Handoff = "exact",
    number_format: FormatName | None = None,
    later: Sequence[int] = (),
    conditioning: Mapping[str, Tensor] | None = None,
    lines: Sequence[Line] = (),
) -> SharedSteps:
    """Run steps [0, `stop`) of a plan on a public prompt, or on a group's conditioning, and pack the state.

    With `lines` the steps are a tree: each line continues latents and scheduler's history of another one, exactly, on a
    prompt of its own.

    The pipeline must hold the shared state that the plan names.

    Args:
        pipe: Pipeline of the executor.
        group_prompt: Public prompt of the group.
        plan: Denoising plan.
        stop: Number of shared steps.
        noise_seed: Seed of the initial noise.
        handoff: Hand-off mode.
        number_format: Number format of the packet; None for bits as computed.
        later: Ascending steps past `stop` to continue to; the state is packed before each of them.
        conditioning: Tensors to run on in place of the prompt, as of `diffusion.conditioning`.
        lines: Lines 1, 2, ... of a tree, a parent before those that continue it. Line 0 are the steps above.

    Returns:
        The packets, those of line 0 first, then line by line; and how often the denoiser ran.

    Raises:
        UserError: If a hand-off step lies past the boundary, since a personal adapter is its device's own, or
            if latents alone cannot resume there, or if the conditioning does not fit the pipeline.
    """
    tree = [Line(group_prompt, 0, (stop, *later)), *lines]
    for step in {step for line in tree for step in line.stops}:
        check_handoff(plan, step, handoff)
    packets = []
    # the states from which lines continue, by line and step
    held: dict[tuple[int, int], DenoisingState] = {}
    wanted = {(line.parent, line.start) for line in lines}
    with DenoiserCount(pipe) as count:
        for number, line in enumerate(tree):
            whole = number == 0 and conditioning is not None
            given = placed(pipe, conditioning or {}) if whole else {"prompt": line.prompt}
            state = held[line.parent, line.start] if number else initial_state(pipe, plan, noise_seed)
            for step in sorted({*line.stops, *(at for of, at in wanted if of == number)}):
                state = run_stages(pipe, state, given, plan, step)
                if (number, step) in wanted:
                    held[number, step] = state
                if step in line.stops:
                    packets.append(pack(state, plan, handoff, number_format))
    return SharedSteps(packets[0], count.calls, count.samples, tuple(packets[1:]))
