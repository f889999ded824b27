"""Transmission of a packet over a channel: the channel of each part, the received packet, the bit counts.

The header and its prefix, a few hundred bytes, define the meaning of all other bits. Here they never arrive
with errors, but they count at the cost of the most robust scheme. The tensors of the body use the given
channel, in bit planes if they have a number format.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedaigc.diffusion.handoff.packing import BodyTensor, body_tensors, packet_layout
from fedaigc.wireless.block_code import MCS, PAYLOAD_BITS
from fedaigc.wireless.channel import Channel

# header bits cost at least one block of the most robust scheme
_HEADER_SCHEME = MCS[min(MCS)]


@dataclass(frozen=True)
class SentPacket:
    """A packet as it arrived.

    Attributes:
        packet: The received bytes.
        information_bits: Bits of the body in its number format: the latents and, under the exact hand-off,
            the history.
        serialized_bits: 8 per byte of the packet.
        bits_on_air, symbols: Bits on air and channel uses of header and body together.
        transmissions: Rounds of sending that the slowest part took.
        bit_errors: Wrong bits among those of the body that were not erased.
        erased_bits: Erased bits of the body.
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
        """Whether anything in the body differs from what was sent, or was erased."""
        return self.bit_errors > 0 or self.erased_bits > 0


def transmit(
    packet: bytes, channel_for: Callable[[BodyTensor], Channel], random: np.random.Generator
) -> SentPacket:
    """Send a packet's header without errors, and each tensor of its body through its channel.

    Erased bits are filled by `NumberFormat.fill_erased`; in a tensor without a number format they become 0. A
    damaged packet needs tolerant delivery, since strict delivery refuses it.

    Args:
        packet: The packet to send.
        channel_for: Returns the channel of a tensor; it may depend on the tensor's number format.
        random: Random stream of the channels.

    Raises:
        PacketError: If the bytes are not a packet.
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
