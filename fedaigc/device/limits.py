"""What the owner of a device lets a server ask of it, below the bounds that hold for everyone."""

from dataclasses import dataclass

from fedaigc.diffusion.plan_request import PlanRequest
from fedaigc.errors import UserError


@dataclass(frozen=True)
class OwnerLimits:
    """The owner's limits; a server that asks for more is refused, and nothing is computed.

    max_denoising_steps, max_image_side (pixels), max_guidance_scale: of a plan. boundary_timestep: t* as a
    timestep of training, which a server may not move; None for a federation without a personal stage.
    max_weight_change, max_picture_change: of a shared state, see `device.acceptance`.
    """

    max_denoising_steps: int = 150
    max_image_side: int = 1024
    max_guidance_scale: float = 30.0
    boundary_timestep: int | None = 500
    max_weight_change: float = 1.0
    max_picture_change: float = 1.0

    def check_plan(self, request: PlanRequest) -> None:
        """UserError for a plan beyond the limits."""
        asked = {
            "denoising steps": (request.num_inference_steps, self.max_denoising_steps),
            "pixels a side": (max(request.height, request.width), self.max_image_side),
            "guidance scale": (request.guidance_scale, self.max_guidance_scale),
        }
        for what, (value, limit) in asked.items():
            if value > limit:
                raise UserError(f"{what}: {value} asked for, the owner of this device allows {limit}")
