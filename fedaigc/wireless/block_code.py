"""Code blocks: 1,000 payload bits and a 24-bit checksum through the 5G LDPC code, on sionna.

The code rates are those of 3GPP TS 38.214, Table 5.1.3.1-2 (up to 256-QAM), with the indices of that table.
Every block has 1,024 bits before coding, at every rate. The last block is padded with zeros.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fedaigc.errors import UserError
from fedaigc.wireless.modulation import BITS_PER_SYMBOL, Modulation
from fedaigc.wireless.sionna_random import load_sionna

PAYLOAD_BITS = 1000
CHECK_BITS = 24
BLOCK_BITS = PAYLOAD_BITS + CHECK_BITS
# total iteration counts after which blocks with a correct checksum leave belief propagation
_ITERATIONS = (4, 8, 20)


@dataclass(frozen=True)
class Scheme:
    """A modulation and a code rate.

    Attributes:
        modulation: Modulation of the symbols.
        code_rate: Rate of the LDPC code, from 0.2 to 0.92. None sends uncoded bits, whose errors are not
            detected.

    Raises:
        UserError: If the modulation is unknown, or the code rate is out of range.
    """

    modulation: Modulation
    code_rate: float | None

    def __post_init__(self) -> None:
        if self.modulation not in BITS_PER_SYMBOL:
            raise UserError(f"modulation {self.modulation!r}: expected one of {', '.join(BITS_PER_SYMBOL)}")
        if self.code_rate is not None and not 0.2 <= self.code_rate <= 0.92:
            raise UserError(f"code rate {self.code_rate}: the 5G code has rates from 0.2 to 0.92")

    @property
    def bits_per_symbol(self) -> int:
        """Number of bits on air per symbol."""
        return BITS_PER_SYMBOL[self.modulation]

    @property
    def coded_bits(self) -> int:
        """Number of bits on air per code block, in whole symbols.

        Raises:
            TypeError: If the scheme is uncoded.
        """
        if self.code_rate is None:
            raise TypeError("an uncoded scheme has no blocks")
        symbols = int(BLOCK_BITS / self.code_rate / self.bits_per_symbol)
        return symbols * self.bits_per_symbol

    @property
    def efficiency(self) -> float:
        """Payload bits per symbol, without retransmissions."""
        if self.code_rate is None:
            return float(self.bits_per_symbol)
        return PAYLOAD_BITS * self.bits_per_symbol / self.coded_bits


# by index in Table 5.1.3.1-2 of TS 38.214; neighbouring schemes are about 2 dB apart
MCS: dict[int, Scheme] = {
    2: Scheme("qpsk", 308 / 1024),
    3: Scheme("qpsk", 449 / 1024),
    4: Scheme("qpsk", 602 / 1024),
    6: Scheme("16qam", 434 / 1024),
    8: Scheme("16qam", 553 / 1024),
    10: Scheme("16qam", 658 / 1024),
    13: Scheme("64qam", 567 / 1024),
    15: Scheme("64qam", 666 / 1024),
    17: Scheme("64qam", 772 / 1024),
    20: Scheme("256qam", 682.5 / 1024),
    23: Scheme("256qam", 797 / 1024),
    26: Scheme("256qam", 916.5 / 1024),
}


def to_blocks(bits: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, "blocks 1000"]:
    """Split bits into blocks of 1,000, the last one padded with zeros."""
    return np.pad(bits, (0, -len(bits) % PAYLOAD_BITS)).reshape(-1, PAYLOAD_BITS)


class BlockCode:
    """Checksum and LDPC code of one scheme.

    Use `block_code`, which caches instances: building the graph takes time.
    """

    def __init__(self, scheme: Scheme) -> None:
        load_sionna()
        from sionna.phy.fec.crc import CRCDecoder, CRCEncoder
        from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

        self._append = CRCEncoder("CRC24A", k=PAYLOAD_BITS, device="cpu")
        self._check = CRCDecoder(self._append, device="cpu")
        self._encode = LDPC5GEncoder(
            BLOCK_BITS,
            scheme.coded_bits,
            num_bits_per_symbol=scheme.bits_per_symbol,
            device="cpu",
            check_input=False,
        )
        # max-log ratios are overconfident; the offset compensates for this
        self._decode = LDPC5GDecoder(
            self._encode, cn_update="offset-minsum", hard_out=True, return_state=True, device="cpu"
        )

    def encode(self, payload: Float[Tensor, "blocks 1000"]) -> Float[Tensor, "blocks n"]:
        """Encode payloads, with bits interleaved over the positions of a symbol as in 5G.

        Args:
            payload: Payload bits as floats, (blocks, 1000).

        Returns:
            Coded bits as floats, (blocks, n), where n is the scheme's `coded_bits`.
        """
        return self._encode(self._append(payload))

    def decode(
        self, llrs: Float[Tensor, "blocks n"]
    ) -> tuple[Float[Tensor, "blocks 1000"], Bool[Tensor, " blocks"]]:
        """Decode blocks and verify their checksums.

        Decoding takes at most 20 iterations. A block whose checksum agrees earlier is done; the others
        continue.

        Args:
            llrs: Log-likelihood ratios ln p(1) / p(0) of the coded bits, (blocks, n).

        Returns:
            The decoded payload of each block, (blocks, 1000), and whether its checksum agrees, (blocks,).
        """
        payload = llrs.new_zeros(len(llrs), PAYLOAD_BITS)
        correct = torch.zeros(len(llrs), dtype=torch.bool)
        pending = torch.arange(len(llrs))
        messages: Any = None
        done = 0
        for iterations in _ITERATIONS:
            decoded, messages = self._decode(llrs[pending], num_iter=iterations - done, msg_v2c=messages)
            done = iterations
            found, agrees = self._check(decoded)
            agrees = agrees.reshape(-1).bool()
            payload[pending], correct[pending] = found, agrees
            pending, messages = pending[~agrees], messages[~agrees]
            if not len(pending):
                break
        return payload, correct


@lru_cache(maxsize=16)
def block_code(scheme: Scheme) -> BlockCode:
    """Return the code of a scheme, built once per process."""
    return BlockCode(scheme)
