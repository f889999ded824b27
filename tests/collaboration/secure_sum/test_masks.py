"""Masks cancel bit for bit, colluding members learn what the definition says, and wrong keys are refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.collaboration.secure_sum.masks import Announced, SumKey, SumRound, check_key
from fedaigc.errors import UserError


def round_of(keys: list[SumKey], **changes: Any) -> SumRound:
    announced = tuple(Announced(key.public) for key in keys)
    return replace(SumRound("run", "a dog", "ab" * 16, "form", None, announced), **changes)


def values(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, size, np.uint64)


@settings(max_examples=25)
@given(st.integers(3, 9), st.integers(0, 40), st.randoms(use_true_random=False))
def test_masks_cancel_bit_for_bit(members: int, size: int, random: Any) -> None:
    keys = [SumKey() for _ in range(members)]
    plain = [values(i, size) for i in range(members)]
    masked = []
    for key, own in zip(keys, plain, strict=True):
        # each is shown the list in another order
        shown = random.sample(keys, len(keys))
        agreed = round_of(shown)
        agreed.check(key.public)
        masked.append(key.masked(own, agreed))
    random.shuffle(masked)
    assert np.array_equal(np.sum(masked, axis=0, dtype=np.uint64), np.sum(plain, axis=0, dtype=np.uint64))


def test_what_two_of_three_who_collude_learn() -> None:
    """With the server, they learn exactly the third's value: that is what a sum of three cannot hide from two."""
    keys, plain = [SumKey() for _ in range(3)], [values(i, 50) for i in range(3)]
    agreed = round_of(keys)
    sent = [key.masked(own, agreed) for key, own in zip(keys, plain, strict=True)]
    assert np.array_equal(sent[0] + sent[1] + sent[2] - plain[0] - plain[1], plain[2])
    # of four, two who collude learn the sum of the others. All that the others sent is explained as well by any other
    # pair of values with this sum: the mask between them is a keystream that the two do not have
    keys, plain = [SumKey() for _ in range(4)], [values(i, 50) for i in range(4)]
    agreed = round_of(keys)
    sent = [key.masked(own, agreed) for key, own in zip(keys, plain, strict=True)]
    known = [keys[i].masked(np.zeros(50, np.uint64), agreed) for i in (0, 1)]
    assert np.array_equal(np.sum(sent, axis=0, dtype=np.uint64) - plain[0] - plain[1], plain[2] + plain[3])
    # removing every mask that they share with the third leaves a number as random as before
    third = SumKey(keys[2].private)
    between = round_of([keys[2], keys[3]])
    assert between.hash != agreed.hash
    left = sent[2] + known[0] + known[1]
    assert not np.array_equal(left, plain[2])
    assert np.count_nonzero(left == plain[2]) == 0
    assert np.array_equal(third.masked(plain[2], agreed), sent[2])


def test_the_server_alone_sees_numbers_that_look_uniform() -> None:
    keys = [SumKey() for _ in range(3)]
    sent = keys[0].masked(np.zeros(20_000, np.uint64), round_of(keys))
    counts = np.bincount((sent >> np.uint64(56)).astype(int), minlength=256)
    # chi-squared of 255 degrees of freedom: 8 standard deviations
    assert ((counts - sent.size / 256) ** 2 / (sent.size / 256)).sum() < 255 + 8 * np.sqrt(2 * 255)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "other"},
        {"group": "a cat"},
        {"number": "cd" * 16},
        {"layout": "other"},
        {"noise_epsilon": 1.0},
    ],
)
def test_masks_belong_to_run_group_round_and_form(changes: dict[str, Any]) -> None:
    """Members who were shown different rounds, or a round that was replayed, give a sum that is noise."""
    keys, plain = [SumKey() for _ in range(3)], [values(i, 30) for i in range(3)]
    agreed = round_of(keys)
    sent = [key.masked(own, agreed) for key, own in zip(keys, plain, strict=True)]
    other = keys[2].masked(plain[2], round_of(keys, **changes))
    assert np.count_nonzero(sent[0] + sent[1] + other == np.sum(plain, axis=0, dtype=np.uint64)) == 0
    # and so do different lists
    shown = round_of([*keys, SumKey()])
    assert np.count_nonzero(keys[2].masked(plain[2], shown) == sent[2]) == 0


def test_keys_that_are_none_are_refused() -> None:
    good = SumKey().public
    check_key(good)
    for wrong in (
        good[:31],
        good + b"\0",
        # the same point in another form, which would pass for another member
        good[:31] + bytes([good[31] | 128]),
        (2**255 - 19).to_bytes(32, "little"),
    ):
        with pytest.raises(UserError, match="expected 32 bytes"):
            check_key(wrong)


@pytest.mark.parametrize("low", [0, 1, 2**255 - 20])
def test_points_of_low_order_are_refused(low: int) -> None:
    keys = [SumKey() for _ in range(2)]
    agreed = round_of(keys)
    agreed = replace(agreed, members=(*agreed.members, Announced(low.to_bytes(32, "little"))))
    agreed.check(keys[0].public)
    with pytest.raises(UserError, match="low order"):
        keys[0].masked(values(0, 5), agreed)


def test_a_list_that_does_not_protect_is_refused() -> None:
    keys = [SumKey() for _ in range(4)]
    with pytest.raises(UserError, match="a sum of 2 members"):
        round_of(keys[:2]).check(keys[0].public)
    with pytest.raises(UserError, match="repeat"):
        round_of([*keys[:3], keys[0]]).check(keys[0].public)
    with pytest.raises(UserError, match="not in the list"):
        round_of(keys[1:]).check(keys[0].public)
    # two of three tasks are the device's own
    with pytest.raises(UserError, match="3 members and 1 other devices"):
        round_of(keys[:3]).check(keys[0].public, also_own=[keys[1].public])
    round_of(keys).check(keys[0].public, also_own=[keys[1].public])


def signed(key: SumKey, node: Any, run: str = "run", number: str = "ab" * 16) -> Announced:
    node_key = node.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    text = Announced(key.public).signed_text(run, number)
    return Announced(key.public, node_key, node.sign(text, ec.ECDSA(hashes.SHA256())))


def test_signatures_of_node_keys() -> None:
    keys = [SumKey() for _ in range(3)]
    nodes = [ec.generate_private_key(ec.SECP384R1()) for _ in range(3)]
    members = [signed(key, node) for key, node in zip(keys, nodes, strict=True)]
    agreed = round_of(keys, members=tuple(members))
    trusted = [member.node_key for member in members]
    agreed.check(keys[0].public)
    agreed.check(keys[0].public, trusted=trusted)
    unsigned = replace(agreed, members=(*members[:2], Announced(keys[2].public)))
    unsigned.check(keys[0].public)
    with pytest.raises(UserError, match="does not trust"):
        unsigned.check(keys[0].public, trusted=trusted)
    with pytest.raises(UserError, match="does not trust"):
        agreed.check(keys[0].public, trusted=trusted[:2])
    stranger = ed25519.Ed25519PrivateKey.generate().public_key()
    wrong_kind = stranger.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    for wrong in (
        replace(members[2], signature=members[1].signature),
        replace(members[2], signature=b""),
        replace(members[2], node_key=b""),
        replace(members[2], node_key=b"ssh-rsa nothing"),
        replace(members[2], node_key=wrong_kind),
        replace(members[2], key=SumKey().public),
        # of an earlier round, and of another run
        signed(keys[2], nodes[2], number="cd" * 16),
        signed(keys[2], nodes[2], run="earlier"),
    ):
        with pytest.raises(UserError, match="signature that does not hold"):
            replace(agreed, members=(*members[:2], wrong)).check(keys[0].public)
    # two keys of one device are one device
    twice = replace(agreed, members=(members[0], members[1], signed(keys[2], nodes[1])))
    with pytest.raises(UserError, match="3 members and 1 other devices"):
        twice.check(keys[0].public)
