"""A packet over a channel: which of its bits go how, what arrives, and the three counts of bits.

Header and prefix, a few hundred bytes, say what all other bits mean: they never arrive with errors here, but
at the cost of the most robust scheme, and they count. The tensors of the body take the channel that is given,
in bit planes where they have a number format.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedaigc.diffusion.handoff.packing import BodyTensor, body_tensors, packet_layout
from fedaigc.wireless.block_code import MCS, PAYLOAD_BITS
from fedaigc.wireless.channel import Channel

# what header bits cost on the air: the most robust scheme, and one block at least
_HEADER_SCHEME = MCS[min(MCS)]


@dataclass(frozen=True)
class SentPacket:
    """A packet as it arrived.

    information_bits: of the body, in its number format: the latents and, under exact hand-off, the history.
    serialized_bits: 8 a byte of the packet.
    bits_on_air, symbols: of header and body together. transmissions: rounds that the slowest part took.
    bit_errors: wrong bits among the body's that were not erased. erased_bits: those given up.
    """

    packet: bytes
    information_bits: int
    serialized_bits: int
    bits_on_air: int
    symbols: int
    transmissions: int
    bit_errors: int
    erased_bits: int

    @property
    def damaged(self) -> bool:
        """Whether anything in the body differs from what was sent."""
        return self.bit_errors > 0 or self.erased_bits > 0


def transmit(
    packet: bytes, channel_for: Callable[[BodyTensor], Channel], random: np.random.Generator
) -> SentPacket:
    """Send a packet's header safely and each tensor of its body through its channel.

    channel_for: the channel of a tensor; it may look at the tensor's number format. Erased bits are filled in
    by `NumberFormat.fill_erased`; of a tensor without a number format they become 0. A damaged packet is for
    tolerant delivery: strict refuses it. Raises PacketError for bytes that are no packet.
    """
    start = packet_layout(packet).header[1]
    header_blocks = -(-8 * start // PAYLOAD_BITS)
    bits_on_air = header_blocks * _HEADER_SCHEME.coded_bits
    symbols = bits_on_air // _HEADER_SCHEME.bits_per_symbol
    parts, rounds, wrong, lost, information = [packet[:start]], 1, 0, 0, 0
    for tensor in body_tensors(packet):
        raw = np.frombuffer(packet[slice(*tensor.span)], np.uint8)
        width = 8 if tensor.number_format is None else tensor.number_format.width
        count = 8 * len(raw) if tensor.number_format is None else tensor.values * width
        sent = np.unpackbits(raw, count=count)
        reception = channel_for(tensor).send(sent, random)
        received = _filled(tensor, reception.bits, reception.erased)
        parts.append(np.packbits(received).tobytes())
        bits_on_air += reception.bits_on_air
        symbols += reception.symbols
        rounds = max(rounds, reception.transmissions)
        wrong += int(((reception.bits != sent) & ~reception.erased).sum())
        lost += int(reception.erased.sum())
        information += count
    return SentPacket(
        b"".join(parts), information, 8 * len(packet), bits_on_air, symbols, rounds, wrong, lost
    )


def _filled(tensor: BodyTensor, bits: np.ndarray, erased: np.ndarray) -> np.ndarray:
    if not erased.any():
        return bits
    if tensor.number_format is None:
        return np.where(erased, 0, bits).astype(np.uint8)
    width = tensor.number_format.width
    planes, gone = bits.reshape(width, -1).T, erased.reshape(width, -1).T
    return tensor.number_format.fill_erased(planes, gone).T.reshape(-1)
