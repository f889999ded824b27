"""Unequal protection: the significant bits of every value use a more robust scheme than the others.

A payload is laid out in bit planes, the most significant bit of all values first
(`diffusion.handoff.packet`). The planes of one class are therefore contiguous bits. `collaboration.link` chooses
the planes and both schemes. No receiver is told: a `Channel` is both ends of the link.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from fedaigc.errors import UserError
from fedaigc.wireless.channel import Channel, Reception


@dataclass(frozen=True)
class UnequalChannel:
    """Protection classes that are sent one after the other.

    Attributes:
        width: Total number of bit planes, that is the bits per value.
        planes: Number of bit planes of each class, starting with the most significant.
        channels: Channel of each class.

    Raises:
        UserError: If `planes` does not add up to `width`, a class is empty, or there are not as many channels
            as classes.
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
        """Send each class through its channel.

        Raises:
            ValueError: If the bits do not form `width` whole planes.
        """
        if len(bits) % self.width:
            raise ValueError(f"{len(bits)} bits cannot be divided into {self.width} planes")
        ends = np.cumsum(self.planes)[:-1] * (len(bits) // self.width)
        parts = np.split(bits, ends)
        return joined(
            [channel.send(part, random) for channel, part in zip(self.channels, parts, strict=True)]
        )


def joined(receptions: Sequence[Reception]) -> Reception:
    """Return receptions that were on the air one after the other as one.

    Counts add up; `transmissions` is the largest of them.
    """
    return Reception(
        np.concatenate([reception.bits for reception in receptions]),
        np.concatenate([reception.erased for reception in receptions]),
        sum(reception.bits_on_air for reception in receptions),
        sum(reception.symbols for reception in receptions),
        max(reception.transmissions for reception in receptions),
    )
