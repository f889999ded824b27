"""Repair of received values that cannot be right, before denoising continues."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.errors import UserError

Repair = Literal["nothing", "clip", "zero"]
REPAIRS: tuple[Repair, ...] = get_args(Repair)


def repair(latents: Float[Tensor, "*shape"], limit: float, how: Repair) -> Float[Tensor, "*shape"]:
    """Repair implausible latents: those beyond `limit` in magnitude, and NaN.

    Fixed point never decodes to implausible values, so the repairs leave it unchanged.

    Args:
        latents: Received latents, of any shape.
        limit: Largest plausible magnitude.
        how: "clip" clips to +-limit and sets NaN to 0. "zero" sets all implausible values to 0, their mean.
            "nothing" returns the latents unchanged: they may be infinite or NaN, and such a run counts as
            failed.

    Raises:
        UserError: If the repair is unknown.
    """
    if how not in REPAIRS:
        raise UserError(f"repair {how!r}: expected one of {', '.join(REPAIRS)}")
    if how == "nothing":
        return latents
    if how == "clip":
        return torch.nan_to_num(latents, nan=0.0, posinf=limit, neginf=-limit).clamp(-limit, limit)
    return torch.where(latents.abs() <= limit, latents, torch.zeros_like(latents))
