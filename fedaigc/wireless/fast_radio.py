"""The radio link without its symbols: error rates from theory, block errors from measured tables.

Coded transmission: a block fails with the measured probability at its SNR. A failed block gets a measured
number of bit errors at uniformly drawn positions. Combined receptions of a block add their SNRs, which is
exact for Chase combining over AWGN. Uncoded transmission: every bit flips independently with the exact error
rate of its position in the symbol.

The model does not describe which bits of one symbol or of one failed block are wrong together. Use `radio`
for that.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from fedaigc.errors import UserError
from fedaigc.wireless.block_code import PAYLOAD_BITS
from fedaigc.wireless.block_table import block_table
from fedaigc.wireless.channel import Reception
from fedaigc.wireless.fading import NO_FADING, Fading
from fedaigc.wireless.modulation import bit_error_rates
from fedaigc.wireless.radio import Transmission


@dataclass(frozen=True)
class FastRadioChannel:
    """A channel with the arguments of `RadioChannel` and receptions of the same distribution.

    A block in which a fade ends keeps the gain of its first symbol.

    Attributes:
        transmission, snr_db, fading: See `RadioChannel`.

    Raises:
        UserError: If fades are shorter than a code block, which the tables do not cover, or the scheme was
            not measured.
    """

    transmission: Transmission
    snr_db: float
    fading: Fading = NO_FADING

    def __post_init__(self) -> None:
        scheme, fade = self.transmission.scheme, self.fading.symbols_per_fade
        if scheme.code_rate is None:
            return
        block_table(scheme)
        symbols = scheme.coded_bits // scheme.bits_per_symbol
        if fade is not None and fade < symbols:
            raise UserError(
                f"fades of {fade} symbols are shorter than a code block of {symbols}: use the full chain"
            )

    def send(self, bits: UInt8[np.ndarray, " n"], random: np.random.Generator) -> Reception:
        """Draw the errors of the received bits; failed blocks may be erased."""
        if self.transmission.scheme.code_rate is None:
            return self._send_uncoded(bits, random)
        return self._send_coded(bits, random)

    def _send_uncoded(self, bits: np.ndarray, random: np.random.Generator) -> Reception:
        scheme = self.transmission.scheme
        symbols = -(-len(bits) // scheme.bits_per_symbol)
        energies, fade = self._energies(np.arange(symbols), random)
        rates = np.stack([bit_error_rates(scheme.modulation, db) for db in self._snr_db(energies)])
        flips = random.random((symbols, scheme.bits_per_symbol)) < rates[fade]
        received = bits ^ flips.reshape(-1)[: len(bits)]
        return Reception(
            received.astype(np.uint8),
            np.zeros(len(bits), bool),
            symbols * scheme.bits_per_symbol,
            symbols,
        )

    def _send_coded(self, bits: np.ndarray, random: np.random.Generator) -> Reception:
        scheme, table = self.transmission.scheme, block_table(self.transmission.scheme)
        blocks = -(-len(bits) // PAYLOAD_BITS)
        symbols = scheme.coded_bits // scheme.bits_per_symbol
        pending = np.arange(blocks)
        energy = np.zeros(blocks)
        sent, rounds = 0, 0
        while len(pending) and rounds < self.transmission.max_transmissions:
            rounds += 1
            energies, fade = self._energies((sent + np.arange(len(pending))) * symbols, random)
            energy[pending] += energies[fade]
            sent += len(pending)
            failed = random.random(len(pending)) < table.block_error_rate(self._snr_db(energy[pending]))
            pending = pending[failed]
        flips = np.zeros((blocks, PAYLOAD_BITS), bool)
        counts = table.draw_errors(self._snr_db(energy[pending]), random)
        for block, count in zip(pending, counts, strict=True):
            flips[block, random.choice(PAYLOAD_BITS, count, replace=False)] = True
        erased = np.zeros((blocks, PAYLOAD_BITS), bool)
        erased[pending] = self.transmission.failed_block == "erase"
        return Reception(
            (bits ^ flips.reshape(-1)[: len(bits)]).astype(np.uint8),
            erased.reshape(-1)[: len(bits)],
            sent * scheme.coded_bits,
            sent * symbols,
            max(rounds, 1),
        )

    def _energies(
        self, starts: np.ndarray, random: np.random.Generator
    ) -> tuple[Float[np.ndarray, " fades"], np.ndarray]:
        """Return |h|^2 of new fades, and the fade of each start symbol."""
        if self.fading.symbols_per_fade is None or not len(starts):
            return np.ones(1), np.zeros(len(starts), dtype=int)
        fade = starts // self.fading.symbols_per_fade
        fade = fade - fade[0]
        return self.fading.energies(int(fade[-1]) + 1, random), fade

    def _snr_db(self, energy: np.ndarray) -> np.ndarray:
        return self.snr_db + 10 * np.log10(np.maximum(energy, 1e-30))
