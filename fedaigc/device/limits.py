"""What the owner of a device lets a server ask of it, below the bounds that hold for everyone."""

from dataclasses import dataclass

from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.errors import UserError


@dataclass(frozen=True)
class OwnerLimits:
    """The owner's limits; a server that asks for more is refused, and nothing is computed.

    max_denoising_steps, max_image_side (pixels, of pictures to train on too), max_guidance_scale: of a plan.
    boundary_timestep: t* as a timestep of training, which a server may not move; None for a federation
    without a personal stage.
    max_weight_change, max_picture_change: of a shared state, see `device.acceptance`.

    Of an order to train (see `training_limits`): max_local_steps, optimizer steps of the shared stage with
    the gradient batches that a strategy takes beside them; max_personal_steps; max_batch_size;
    max_rank, of what is received and of the personal adapter; max_learning_rate; max_condition_dropout;
    full_weights, whether dense weights may be trained in place of factors. Of all orders together, whatever
    their runs: max_rounds_a_day (24 hours), max_rounds, and max_passes, how often each private picture is
    trained on in the shared stage, on average; a step counts as 8 pictures at least, and k times at k times
    the learning rate of 1e-3 or where the factors carry it k times as far, k > 1. max_update_norm: what an
    update is clipped to.
    """

    max_denoising_steps: int = 150
    max_image_side: int = 1024
    max_guidance_scale: float = 30.0
    boundary_timestep: int | None = 500
    max_weight_change: float = 1.0
    max_picture_change: float = 1.0
    max_local_steps: int = 40
    max_personal_steps: int = 200
    max_batch_size: int = 32
    max_rank: int = 16
    max_learning_rate: float = 3e-3
    max_condition_dropout: float = 0.1
    full_weights: bool = False
    max_rounds_a_day: int = 200
    max_rounds: int = 1000
    max_passes: float = 54.0
    max_update_norm: float = 12.0

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
