"""The full radio chain on sionna: checksum, LDPC, QAM, noise and fading, demapping, decoding, retransmission.

    y = h x + w,  E|x|^2 = 1,  w complex Gaussian of variance N0 = 1 / snr

The receiver knows h. A block whose checksum fails is sent again, with the gains of that later time. All
receptions of a block are combined symbol by symbol (Chase combining):

    sum h* y / sum |h|^2
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float, UInt8
from torch import Tensor

from fedaigc.errors import UserError
from fedaigc.wireless.block_code import PAYLOAD_BITS, Scheme, block_code, to_blocks
from fedaigc.wireless.channel import Reception
from fedaigc.wireless.fading import NO_FADING, Fading
from fedaigc.wireless.modulation import demapper, mapper
from fedaigc.wireless.sionna_random import load_sionna, sionna_random

FailedBlock = Literal["keep", "erase"]
# bounded, since the demapper compares every symbol with every constellation point
_BLOCKS_AT_ONCE = 256


@dataclass(frozen=True)
class Transmission:
    """How bits are sent over a radio channel, independent of how the channel is computed.

    Retransmissions and erasures need a code.

    Attributes:
        scheme: Modulation and code rate.
        max_transmissions: Transmissions of a block at most, the first included.
        failed_block: What remains of a block whose checksum never agreed: "keep" the bits as decoded, or
            "erase" them.

    Raises:
        UserError: If `max_transmissions` is below 1, or an uncoded scheme is to send again or to erase.
    """

    scheme: Scheme
    max_transmissions: int = 1
    failed_block: FailedBlock = "keep"

    def __post_init__(self) -> None:
        if self.max_transmissions < 1:
            raise UserError(f"max_transmissions is {self.max_transmissions}: expected at least 1")
        uncoded = self.scheme.code_rate is None
        if uncoded and (self.max_transmissions > 1 or self.failed_block != "keep"):
            raise UserError("without a code there is no checksum: blocks can be neither resent nor erased")


@dataclass(frozen=True)
class RadioChannel:
    """Bits over AWGN or Rayleigh block fading, with every symbol computed.

    Attributes:
        transmission: How bits are sent.
        snr_db: Mean Es / N0 at the receiver, in dB.
        fading: Fading of the channel.
    """

    transmission: Transmission
    snr_db: float
    fading: Fading = NO_FADING

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """Send bits through the chain; bits of a failed block are those decoded, or erased."""
        if self.transmission.scheme.code_rate is None:
            return self._send_uncoded(bits, random)
        return self._send_coded(bits, random)

    def _send_uncoded(self, bits: np.ndarray, random: np.random.Generator) -> Reception:
        scheme = self.transmission.scheme
        padded = np.pad(bits, (0, -len(bits) % scheme.bits_per_symbol))
        symbols = mapper(scheme.modulation)(torch.from_numpy(padded.astype(np.float32)))
        gains = self.fading.gains(len(symbols), random)
        equalised, noise = self._equalised(self._received(symbols, gains, random), gains)
        found = demapper(scheme.modulation, hard=True)(equalised, noise)
        return Reception(
            found.numpy().astype(np.uint8)[: len(bits)],
            np.zeros(len(bits), bool),
            len(padded),
            len(symbols),
        )

    def _send_coded(self, bits: np.ndarray, random: np.random.Generator) -> Reception:
        blocks = to_blocks(bits)
        scheme = self.transmission.scheme
        sent_blocks, rounds, start = 0, 1, 0
        parts = [np.zeros((0, PAYLOAD_BITS), np.uint8)]
        failures = [np.zeros(0, bool)]
        for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
            chunk = torch.from_numpy(blocks[first : first + _BLOCKS_AT_ONCE].astype(np.float32))
            payload, failed, sent, used = self._send_blocks(chunk, random, start)
            start += sent * scheme.coded_bits // scheme.bits_per_symbol
            sent_blocks, rounds = sent_blocks + sent, max(rounds, used)
            parts.append(payload.numpy().astype(np.uint8))
            failures.append(failed.numpy())
        on_air = sent_blocks * scheme.coded_bits
        lost = np.concatenate(failures) & (self.transmission.failed_block == "erase")
        return Reception(
            np.concatenate(parts).reshape(-1)[: len(bits)],
            np.repeat(lost, PAYLOAD_BITS)[: len(bits)],
            on_air,
            on_air // scheme.bits_per_symbol,
            rounds,
        )

    def _send_blocks(
        self, payload: Float[Tensor, "blocks 1000"], random: np.random.Generator, start: int
    ) -> tuple[Tensor, Tensor, int, int]:
        """Return payload and failure of each block, the number of blocks sent, and the rounds it took."""
        scheme = self.transmission.scheme
        code = block_code(scheme)
        sent = mapper(scheme.modulation)(code.encode(payload))
        matched = torch.zeros_like(sent)
        energy = torch.zeros(sent.shape)
        found = payload.clone()
        pending = torch.arange(len(payload))
        count, rounds = 0, 0
        while len(pending) and rounds < self.transmission.max_transmissions:
            rounds += 1
            symbols = sent[pending]
            gains = self.fading.gains(symbols.numel(), random, start).reshape(symbols.shape)
            start += symbols.numel()
            received = self._received(symbols, gains, random)
            matched[pending] += gains.conj() * received
            energy[pending] += gains.abs().square()
            count += len(pending)
            combined = matched[pending] / energy[pending]
            noise = 10 ** (-self.snr_db / 10) / energy[pending]
            llrs = demapper(scheme.modulation, hard=False)(combined, noise)
            found[pending], correct = code.decode(llrs)
            pending = pending[~correct]
        failed = torch.zeros(len(payload), dtype=torch.bool)
        failed[pending] = True
        return found, failed, count, rounds

    def _received(
        self,
        symbols: Complex[Tensor, "*shape"],
        gains: Complex[Tensor, "*shape"],
        random: np.random.Generator,
    ) -> Complex[Tensor, "*shape"]:
        load_sionna()
        from sionna.phy.channel import AWGN

        with sionna_random(random):
            return AWGN(device="cpu")(symbols * gains, 10 ** (-self.snr_db / 10))

    def _equalised(
        self, received: Complex[Tensor, "*shape"], gains: Complex[Tensor, "*shape"]
    ) -> tuple[Complex[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        energy = gains.abs().square()
        return gains.conj() * received / energy, 10 ** (-self.snr_db / 10) / energy
