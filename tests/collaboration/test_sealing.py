"""Sealed packets: only members open them, only where and as they were sealed, and nothing of them shows."""

import contextlib
import hashlib
import hmac
from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.bounds import MAX_SEALED_MEMBERS
from fedaigc.collaboration import sealing
from fedaigc.collaboration.sealing import (
    Binding,
    SealError,
    new_key,
    public_key,
    seal,
    sealed_bytes,
    unseal,
)
from fedaigc.errors import UserError

SENDER, OTHER = new_key(), new_key()
MEMBERS = [new_key() for _ in range(4)]
PUBLIC = [public_key(member) for member in MEMBERS]
HERE = Binding(b"a group of a session", 3)
ROOM = 512


@settings(max_examples=30)
@given(st.binary(max_size=ROOM), st.integers(1, 4), st.integers(0, 1000))
def test_every_member_opens_it_and_nobody_else(packet: bytes, members: int, step: int) -> None:
    binding = Binding(HERE.group, step)
    sealed = seal(packet, binding, SENDER, PUBLIC[:members], ROOM)
    for number, member in enumerate([*MEMBERS, OTHER, SENDER]):
        if number < members:
            assert unseal(sealed, binding, member, public_key(SENDER)) == packet
        else:
            with pytest.raises(SealError):
                unseal(sealed, binding, member, public_key(SENDER))


SEALED = seal(b"latents" * 20, HERE, SENDER, PUBLIC, ROOM)


@settings(max_examples=200)
@given(st.integers(0, 8 * len(SEALED) - 1))
def test_a_flipped_bit_anywhere_is_refused_by_every_member(bit: int) -> None:
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    for member in MEMBERS:
        with pytest.raises(SealError):
            unseal(bytes(changed), HERE, member, public_key(SENDER))


@pytest.mark.parametrize(
    "changed",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed + b"\0",
        lambda sealed: b"",
        lambda sealed: sealed[:40],
        # another member's key in place of the own, and one left out
        lambda sealed: sealed[: -32 - 48] + sealed[-32 - 96 : -32 - 48] + sealed[-32:],
        # the public key of small order, with which every private key gives the same
        lambda sealed: sealed[:12] + bytes(32) + sealed[44:],
        # lengths that would cost memory
        lambda sealed: sealed[:8] + b"\xff" * 4 + sealed[12:],
    ],
)
def test_other_bytes_are_refused(changed: Callable[[bytes], bytes]) -> None:
    with pytest.raises(SealError):
        unseal(changed(SEALED), HERE, MEMBERS[0], public_key(SENDER))


@pytest.mark.parametrize(
    ("binding", "sender"),
    [
        (Binding(b"another group of it.", 3), SENDER),
        (Binding(HERE.group, 4), SENDER),
        (Binding(HERE.group + b"\0", 3), SENDER),
        (HERE, OTHER),
        (HERE, MEMBERS[1]),
    ],
    ids=["another group", "another step", "a longer name", "another sender", "a member"],
)
def test_a_replay_elsewhere_is_refused(binding: Binding, sender: bytes) -> None:
    with pytest.raises(SealError):
        unseal(SEALED, binding, MEMBERS[0], public_key(sender))


def test_a_member_cannot_give_the_others_another_body() -> None:
    """It knows the content key, so it can encrypt a body of the same size and compute the checksum."""
    first, end = 44, len(SEALED) - 32 - 48 * len(MEMBERS)
    context = sealing._context(HERE, public_key(SENDER)) + SEALED[:first]
    digest, slots, own = hashlib.sha256(SEALED[:end]).digest(), SEALED[end:-32], MEMBERS[1]
    secret = sealing._exchanged(own, SEALED[12:44]) + sealing._exchanged(own, public_key(SENDER))
    cipher = sealing._cipher(sealing._derived(secret, context + PUBLIC[1]))
    content_key = b""
    for start in range(0, len(slots), 48):
        with contextlib.suppress(InvalidTag):
            content_key = cipher.decrypt(bytes(12), slots[start : start + 48], digest)
    body_key, checksum_key = sealing._body_keys(content_key)
    body = sealing._cipher(body_key).encrypt(bytes(12), bytes(4 + ROOM), context)
    for covered, opens in ((SEALED[:-32], True), (SEALED[:first] + body + slots, False)):
        forged = covered + hmac.digest(checksum_key, covered, "sha256")
        if opens:  # the control: all the rest is as a sender would do it
            assert unseal(forged, HERE, MEMBERS[0], public_key(SENDER)) == b"latents" * 20
            continue
        with pytest.raises(SealError):
            unseal(forged, HERE, MEMBERS[0], public_key(SENDER))


def test_a_forwarder_sees_neither_latents_nor_the_step() -> None:
    first = seal(b"latents of step 3", HERE, SENDER, PUBLIC, ROOM)
    later = seal(b"latents of step 9, with more history", Binding(HERE.group, 9), SENDER, PUBLIC, ROOM)
    assert len(first) == len(later) == sealed_bytes(ROOM, len(PUBLIC))
    # magic, version, members and room: all that is not random
    assert first[:12] == later[:12]
    for sealed in (first, later):
        assert b"latents" not in sealed
        assert HERE.group not in sealed
        assert not any(key in sealed for key in (*PUBLIC, public_key(SENDER)))
    # nothing repeats between two packets: no key and no text is used twice
    again = seal(b"latents of step 3", HERE, SENDER, PUBLIC, ROOM)
    assert not {again[i : i + 16] for i in range(12, len(again), 4)} & {
        first[i : i + 16] for i in range(12, len(first))
    }


def test_what_cannot_be_sealed_is_refused_with_numbers() -> None:
    with pytest.raises(UserError, match="513 bytes, room for 512"):
        seal(bytes(513), HERE, SENDER, PUBLIC, ROOM)
    with pytest.raises(UserError, match="2 keys, 1 of them different"):
        seal(b"", HERE, SENDER, [PUBLIC[0]] * 2, ROOM)
    with pytest.raises(UserError, match=f"1 to {MAX_SEALED_MEMBERS}"):
        seal(b"", HERE, SENDER, [], ROOM)
    for wrong in (b"short", bytes(32)):
        with pytest.raises(UserError, match="no X25519 key"):
            seal(b"", HERE, SENDER, [wrong], ROOM)
    with pytest.raises(ValueError, match="16 to 64"):
        Binding(b"short", 1)
