"""Devices and edges that count steps, and draw nothing: the machines of a session, with its packets.

The packet of a step has random latents. Its size is that of the model, and it is damaged and refused as any other.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from fedaigc.collaboration.session import FinishOrder, ShareOrder
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.sampling.segment import DenoisingState
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.stock_schedule import canonical_config, schedule
from fedaigc.errors import PacketError
from fedaigc.wireless.number_format import FormatName

# latents of Stable Diffusion v1-4 at 512 pixels
SHAPE = (1, 4, 64, 64)


def plan_of(steps: int) -> DenoisingPlan:
    """Return a plan of Stable Diffusion v1-4 with DDIM, without its weights."""
    from diffusers import DDIMScheduler

    scheduler: Any = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.set_timesteps(steps)
    timesteps, sigmas = schedule(scheduler)
    return DenoisingPlan(
        "DDIMScheduler",
        canonical_config(scheduler),
        timesteps,
        sigmas,
        guidance_scale=7.5,
        negative_prompt="",
        height=512,
        width=512,
        dtype="float32",
        base_hash="0" * 64,
        shared_hash="",
        num_inference_steps=steps,
    )


class CountedMachines:
    """The devices and edges of a session.

    Args:
        plan: The plan of all groups.
        number_format: Number format of the packets.
    """

    def __init__(self, plan: DenoisingPlan, number_format: FormatName) -> None:
        self._plan, self._format = plan, number_format
        self._packet = cache(self._made)

    def _made(self, step: int) -> bytes:
        latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(step))
        state = DenoisingState(step, latents, {}, None, 0, self._plan.fingerprint())
        return pack(state, self._plan, "exact", self._format)

    def edge(self, order: ShareOrder) -> SharedSteps:
        """Run shared steps."""
        return SharedSteps(self._packet(order.stop), order.stop, 2 * order.stop)

    def share(self, orders: Sequence[ShareOrder]) -> list[SharedSteps]:
        """Run shared steps on devices."""
        return [self.edge(order) for order in orders]

    def finish(self, orders: Sequence[FinishOrder]) -> list[FinishReport | Failure]:
        """Finish tasks; a packet with a wrong bit is refused."""
        return [self._finished(order) for order in orders]

    def _finished(self, order: FinishOrder) -> FinishReport | Failure:
        done = 0
        if order.packet is not None:
            try:
                done = unpack(order.packet, self._plan, shape=SHAPE).step
            except PacketError:
                return Failure.NOT_FINISHED
        steps = self._plan.num_steps - done
        return FinishReport(steps, 0, steps, 2 * steps, None, None, None)
