"""What the owner of a device lets a server ask of it, below the bounds that hold for everyone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OwnerLimits:
    """The owner's limits; a server that asks for more is refused, and nothing is computed.

    max_denoising_steps, max_image_side (pixels), max_guidance_scale: of a plan. boundary_timestep: t* as a
    timestep of training, which a server may not move; None for a federation without a personal stage.
    """

    max_denoising_steps: int = 150
    max_image_side: int = 1024
    max_guidance_scale: float = 30.0
    boundary_timestep: int | None = 500
