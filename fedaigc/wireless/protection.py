"""Unequal protection: the significant bits of every value through a stronger scheme than the others.

A payload lies in bit planes, the most significant bit of all values first (`diffusion.handoff.packet`), so
that the planes of one class are one run of bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from fedaigc.errors import UserError
from fedaigc.wireless.channel import Channel, Reception


@dataclass(frozen=True)
class UnequalChannel:
    """Classes of protection, one after the other on the air.

    planes: how many bit planes each class has, from the most significant on; they must add up to `width`.
    channels: how each class is sent. Raises UserError when the planes do not add up.
    """

    width: int
    planes: tuple[int, ...]
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        if sum(self.planes) != self.width or min(self.planes, default=0) < 1:
            raise UserError(f"planes {self.planes}: expected counts above 0 that add up to {self.width}")
        if len(self.planes) != len(self.channels):
            raise UserError(f"{len(self.planes)} classes of planes, but {len(self.channels)} channels")

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """Send each class through its channel. ValueError unless the bits are whole planes."""
        if len(bits) % self.width:
            raise ValueError(f"{len(bits)} bits are no {self.width} planes")
        ends = np.cumsum(self.planes)[:-1] * (len(bits) // self.width)
        parts = np.split(bits, ends)
        return joined(
            [channel.send(part, random) for channel, part in zip(self.channels, parts, strict=True)]
        )


def joined(receptions: Sequence[Reception]) -> Reception:
    """Receptions that were on the air one after the other, as one."""
    return Reception(
        np.concatenate([reception.bits for reception in receptions]),
        np.concatenate([reception.erased for reception in receptions]),
        sum(reception.bits_on_air for reception in receptions),
        sum(reception.symbols for reception in receptions),
        max(reception.transmissions for reception in receptions),
    )
