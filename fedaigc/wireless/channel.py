"""What a channel is: bits in, bits out, and how many bits were on the air for it.

Three counters, never mixed. Information bits: of a packet's body in its number format, the latents and, under
exact hand-off, the scheduler's history. Serialized bits: of the whole packet, header included, so 8 times its
bytes. Bits on air: what the modulator was given, with checksums, coding, padding and every retransmission.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

from fedaigc.errors import UserError
from fedaigc.wireless.sionna_random import load_sionna, sionna_random


@dataclass(frozen=True, eq=False)
class Reception:
    """What arrived of n bits.

    bits: as the receiver read them. erased: those that the receiver knows to be wrong and not to use; all
        False where it cannot know. bits_on_air: bits that were modulated. symbols: channel uses.
    transmissions: rounds of sending until every block was there or the limit was reached; at least 1.
    """

    bits: UInt8[np.ndarray, " n"]
    erased: Bool[np.ndarray, " n"]
    bits_on_air: int
    symbols: int
    transmissions: int = 1


@runtime_checkable
class Channel(Protocol):
    """Anything that carries bits. The same bits, parameters and random stream give the same reception."""

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """Send `bits` (0 or 1) once, retransmissions of the channel's own included."""
        ...


@dataclass(frozen=True)
class PerfectChannel:
    """The identity, at one bit a channel use."""

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """What was sent."""
        return Reception(bits.copy(), np.zeros(len(bits), bool), len(bits), len(bits))


@dataclass(frozen=True)
class BinarySymmetricChannel:
    """Every bit flips with the same chance, on its own: the bit error probability of [Du23], Figure 3.

    Raises UserError for a rate outside of [0, 1].
    """

    bit_error_rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.bit_error_rate <= 1:
            raise UserError(f"a bit error rate lies in [0, 1], got {self.bit_error_rate}")

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """The bits with flips, by sionna's BinarySymmetricChannel."""
        import torch

        load_sionna()
        from sionna.phy.channel import BinarySymmetricChannel as Flips

        with sionna_random(random):
            sent = torch.from_numpy(bits.astype(np.float32))
            received = Flips(device="cpu")(sent, self.bit_error_rate)
        return Reception(received.numpy().astype(np.uint8), np.zeros(len(bits), bool), len(bits), len(bits))
