"""A packet for twins opens for members with the same prompt, and looks the same if it opens for nobody."""

import pytest

from fedaigc.collaboration.equality.blinded_keys import BlindedKey, EqualityTest
from fedaigc.collaboration.equality.twin_packets import (
    open_from_twin,
    seal_for_twins,
    sealed_to_nobody,
    twin_packet_bytes,
)
from fedaigc.collaboration.sealing import SealError
from fedaigc.errors import UserError

ROOM = 500
KEYS = [BlindedKey(prompt * 32, "run", "ab" * 16) for prompt in (b"a", b"a", b"b", b"a")]
TEST = EqualityTest("run", "ab" * 16, tuple(key.public for key in KEYS))
EXECUTOR, TWIN, STRANGER, LEFT_OUT = KEYS


def test_who_has_the_prompt_opens_it_and_nobody_else() -> None:
    # a server that says that the stranger is equal gains nothing
    named = [EXECUTOR.public, TWIN.public, STRANGER.public]
    sealed = seal_for_twins(b"latents", EXECUTOR, TEST, named, 3, ROOM)
    for key in (EXECUTOR, TWIN):
        assert open_from_twin(sealed, key, TEST, EXECUTOR.public, 3) == b"latents"
    for key in (STRANGER, LEFT_OUT):
        with pytest.raises(SealError):
            open_from_twin(sealed, key, TEST, EXECUTOR.public, 3)


def test_it_is_bound_to_executor_test_and_step() -> None:
    sealed = seal_for_twins(b"latents", EXECUTOR, TEST, [TWIN.public], 3, ROOM)
    other = EqualityTest("run", "ab" * 16, TEST.keys[:2])
    for test, executor, step in (
        (TEST, LEFT_OUT.public, 3),
        (TEST, EXECUTOR.public, 2),
        (other, EXECUTOR.public, 3),
    ):
        with pytest.raises(SealError):
            open_from_twin(sealed, TWIN, test, executor, step)
    for changed in (sealed[:-1], sealed[:40], b"", sealed[:100] + b"\x00\x00" + sealed[102:]):
        with pytest.raises(SealError):
            open_from_twin(changed, TWIN, TEST, EXECUTOR.public, 3)
    with pytest.raises(UserError, match="no member"):
        seal_for_twins(b"latents", EXECUTOR, TEST, [bytes([9]) * 32], 3, ROOM)


@pytest.mark.parametrize("twins", [1, 3])
def test_one_for_nobody_looks_like_any_other(twins: int) -> None:
    named = [EXECUTOR.public, TWIN.public, STRANGER.public][:twins]
    packets = [
        seal_for_twins(b"", EXECUTOR, TEST, named, 3, ROOM),
        seal_for_twins(bytes(ROOM), EXECUTOR, TEST, named, 3, ROOM),
        sealed_to_nobody(twins, TEST, 3, ROOM),
    ]
    assert {len(packet) for packet in packets} == {twin_packet_bytes(ROOM, twins)}
    # the same clear part: magic, version, number of receivers, room
    assert len({packet[32:44] for packet in packets}) == 1
    for key in KEYS:
        with pytest.raises(SealError):
            open_from_twin(packets[2], key, TEST, EXECUTOR.public, 3)
