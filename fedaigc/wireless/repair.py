"""What a receiver does about values that cannot be right, before it denoises on."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.errors import UserError

Repair = Literal["nothing", "clip", "zero"]
REPAIRS: tuple[Repair, ...] = get_args(Repair)


def repair(latents: Float[Tensor, "*shape"], limit: float, how: Repair) -> Float[Tensor, "*shape"]:
    """The latents with implausible values mended: those beyond `limit` in magnitude or without a value.

    "clip": to +-limit, and no value to 0. "zero": all of them to 0, their mean. "nothing": as they came, so
    they may be infinite; count such a run as failed. Fixed point brings nothing implausible: the repairs
    leave it alone. Raises UserError for another repair.
    """
    if how not in REPAIRS:
        raise UserError(f"repair {how!r}: expected one of {', '.join(REPAIRS)}")
    if how == "nothing":
        return latents
    if how == "clip":
        return torch.nan_to_num(latents, nan=0.0, posinf=limit, neginf=-limit).clamp(-limit, limit)
    return torch.where(latents.abs() <= limit, latents, torch.zeros_like(latents))
