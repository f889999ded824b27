"""The shared steps of a group: the same computation on an edge server and on a device that helps others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedaigc.device.replies import SharedSteps
from fedaigc.diffusion.adapters.stages import run_stages
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
    boundary: int,
    handoff: Handoff = "exact",
    number_format: FormatName | None = None,
    later: Sequence[int] = (),
) -> SharedSteps:
    """Run steps [0, `stop`) of the plan on a public prompt from the noise of `noise_seed`; pack the state.

    later: ascending steps past `stop` to go on to, the state packed before each.

    The pipeline must hold the shared state that the plan names. boundary: first step on the personal side of
    t*. Raises UserError when `stop` lies past the boundary, for a personal adapter is its device's own, and
    when latents alone cannot resume there.
    """
    for step in (stop, *later):
        check_handoff(plan, step, boundary, handoff)
    packets = []
    with DenoiserCount(pipe) as count:
        state = initial_state(pipe, plan, noise_seed)
        for step in (stop, *later):
            state = run_stages(pipe, state, {"prompt": group_prompt}, plan, step, boundary)
            packets.append(pack(state, plan, handoff, number_format))
    return SharedSteps(packets[0], count.calls, count.samples, tuple(packets[1:]))
