"""The shared steps of a group: the same computation on an edge server and on a helper device."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from fedaigc.device.replies import SharedSteps
from fedaigc.diffusion.adapters.stages import run_stages
from fedaigc.diffusion.conditioning import placed
from fedaigc.diffusion.handoff.packing import Handoff, check_handoff, pack
from fedaigc.diffusion.sampling.segment import DenoiserCount, initial_state
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.wireless.number_format import FormatName

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


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
) -> SharedSteps:
    """Run steps [0, `stop`) of a plan on a public prompt, or on a group's conditioning, and pack the state.

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

    Raises:
        UserError: If a hand-off step lies past the boundary, since a personal adapter is its device's own, or
            if latents alone cannot resume there, or if the conditioning does not fit the pipeline.
    """
    for step in (stop, *later):
        check_handoff(plan, step, handoff)
    packets = []
    given = {"prompt": group_prompt} if conditioning is None else placed(pipe, conditioning)
    with DenoiserCount(pipe) as count:
        state = initial_state(pipe, plan, noise_seed)
        for step in (stop, *later):
            state = run_stages(pipe, state, given, plan, step)
            packets.append(pack(state, plan, handoff, number_format))
    return SharedSteps(packets[0], count.calls, count.samples, tuple(packets[1:]))
