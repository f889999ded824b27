"""The interface of a channel: bits in, bits out, and the number of bits on air.

Three counters are kept apart:

- Information bits: the body of a packet in its number format, that is the latents and, under the exact
  hand-off, the scheduler's history.
- Serialized bits: the whole packet with its header, 8 times its size in bytes.
- Bits on air: the input of the modulator, with checksums, coding, padding and every retransmission.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from fedaigc.errors import UserError
from fedaigc.wireless.sionna_random import load_sionna, sionna_random


@dataclass(frozen=True, eq=False)
class Reception:
    """The reception of n bits.

    Attributes:
        bits: Bits as the receiver read them.
        erased: Bits that the receiver knows to be wrong and does not use; all False if it cannot know.
        bits_on_air: Number of modulated bits.
        symbols: Number of channel uses.
        transmissions: Rounds of sending until every block was received or the limit was reached; at least 1.
    """

    bits: UInt8[np.ndarray, " n"]
    erased: Bool[np.ndarray, " n"]
    bits_on_air: int
    symbols: int
    transmissions: int = 1


@runtime_checkable
class Channel(Protocol):
    """Interface of everything that carries bits.

    The same bits, parameters and random stream give the same reception.
    """

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """Send bits once, with the channel's own retransmissions.

        Args:
            bits: Values 0 or 1, (n,).
            random: Random stream of the channel.
        """
        ...


@dataclass(frozen=True)
class PerfectChannel:
    """The identity, at one bit per channel use."""

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """Return the bits as sent."""
        return Reception(bits.copy(), np.zeros(len(bits), bool), len(bits), len(bits))


@dataclass(frozen=True)
class BinarySymmetricChannel:
    """A channel that flips every bit independently with the same probability.

    This probability is the bit error probability of [Du23], Figure 3.

    Attributes:
        bit_error_rate: Probability of a flip, in [0, 1].

    Raises:
        UserError: If the rate lies outside [0, 1].
    """

    bit_error_rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.bit_error_rate <= 1:
            raise UserError(f"bit_error_rate is {self.bit_error_rate}: expected 0 to 1")

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """Flip bits with sionna's `BinarySymmetricChannel`."""
        import torch

        load_sionna()
        from sionna.phy.channel import BinarySymmetricChannel as Flips

        with sionna_random(random):
            sent = torch.from_numpy(bits.astype(np.float32))
            received = Flips(device="cpu")(sent, self.bit_error_rate)
        return Reception(received.numpy().astype(np.uint8), np.zeros(len(bits), bool), len(bits), len(bits))
