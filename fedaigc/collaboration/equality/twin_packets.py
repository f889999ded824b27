"""Packets of shared steps that ran on a private prompt, which only devices with the same prompt can open.

The executor seals its packet (`collaboration.sealing`) to one key a twin, which follows from what only the two have in
common, `BlindedKey.common`: the public half of that key is known to nobody else. The packet is bound to the test and
to the hand-off step.

    offset  size  content
    0       32    public key of the sender, made for this packet
    32      ...   the sealed packet, of one size for all packets of the plan
"""

from collections.abc import Sequence

from fedaigc.collaboration.equality.blinded_keys import BlindedKey, EqualityTest
from fedaigc.collaboration.sealing import (
    KEY_BYTES,
    Binding,
    SealError,
    new_key,
    public_key,
    seal,
    sealed_bytes,
    unseal,
)


def twin_packet_bytes(room: int, twins: int) -> int:
    """Return the size of a packet for twins, the executor among them."""
    return KEY_BYTES + sealed_bytes(room, twins)


def seal_for_twins(
    packet: bytes, own: BlindedKey, test: EqualityTest, twins: Sequence[bytes], step: int, room: int
) -> bytes:
    """Seal a packet to twins.

    Args:
        packet: The packet.
        own: The executor's key.
        test: The equality test.
        twins: Announced keys of the receivers.
        step: The hand-off step.
        room: Size up to which the packet is padded.

    Raises:
        UserError: If a key is not one of the test, if keys repeat, or if the packet is larger than the room.
    """
    receivers = [public_key(own.common(test, key)) for key in twins]
    sender = new_key()
    return public_key(sender) + seal(packet, Binding(test.hash, step), sender, receivers, room)


def sealed_to_nobody(twins: int, test: EqualityTest, step: int, room: int) -> bytes:
    """Return what looks like a packet for twins and opens for none, in place of one that could not be made."""
    sender = new_key()
    receivers = [public_key(new_key()) for _ in range(twins)]
    return public_key(sender) + seal(b"", Binding(test.hash, step), sender, receivers, room)


def open_from_twin(sealed: bytes, own: BlindedKey, test: EqualityTest, executor: bytes, step: int) -> bytes:
    """Open a packet.

    Args:
        sealed: The packet for twins.
        own: This member's key.
        test: The equality test.
        executor: Announced key of the executor; it may be the own one.
        step: The hand-off step.

    Raises:
        SealError: If it was not sealed to this member by an executor with the same prompt, or was changed.
        UserError: If the executor's key is not one of the test.
    """
    if len(sealed) < KEY_BYTES:
        raise SealError(f"not a sealed packet: {len(sealed)} bytes")
    common = own.common(test, executor)
    return unseal(sealed[KEY_BYTES:], Binding(test.hash, step), common, sealed[:KEY_BYTES])
