"""Packets that were damaged on their way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.diffusion.handoff.packing import packet_layout, unpack
from fedaigc.errors import PacketError
from tests.diffusion.handoff.packets import EXACT, LATENTS, STATE, same
from tests.diffusion.schedule.test_plan import PLAN


@st.composite
def damaged(draw: st.DrawFn, packet: bytes) -> bytes:
    """A packet after flips, a cut, an insertion, or two pieces swapped; never the packet itself."""
    data = bytearray(packet)
    position = st.integers(0, len(data) - 1)
    kind = draw(st.sampled_from(["flip", "cut head", "cut tail", "cut middle", "insert", "swap"]))
    if kind == "flip":
        for bit in draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=8, unique=True)):
            data[bit // 8] ^= 1 << bit % 8
    elif kind == "insert":
        at = draw(position)
        data[at:at] = draw(st.binary(min_size=1, max_size=16))
    elif kind == "swap":
        size = draw(st.integers(1, 64))
        first = draw(st.integers(0, len(data) - 2 * size))
        second = draw(st.integers(first + size, len(data) - size))
        data[first : first + size], data[second : second + size] = (
            data[second : second + size],
            data[first : first + size],
        )
    else:
        at = draw(st.integers(1, len(data) - 1))
        end = draw(st.integers(at, len(data)))
        data = {"cut head": data[at:], "cut tail": data[:at], "cut middle": data[:at] + data[end + 1 :]}[kind]
    result = bytes(data)
    return result if result != packet else bytes([packet[0] ^ 1]) + packet[1:]


@pytest.mark.parametrize("packet", [EXACT, LATENTS], ids=["exact", "latents"])
class TestDamage:
    def test_strict_refuses_every_flipped_bit(self, packet: bytes) -> None:
        for position in range(len(packet)):
            data = bytearray(packet)
            data[position] ^= 1 << position % 8
            with pytest.raises(PacketError):
                unpack(bytes(data), PLAN, "strict")

    def test_tolerant_refuses_flips_in_the_header_and_no_others(self, packet: bytes) -> None:
        start = packet_layout(packet).header[1]
        for position in range(len(packet)):
            data = bytearray(packet)
            data[position] ^= 1 << position % 8
            if position < start:
                with pytest.raises(PacketError):
                    unpack(bytes(data), PLAN, "tolerant")
            else:
                assert unpack(bytes(data), PLAN, "tolerant").step == 1

    @given(data=st.data())
    @settings(max_examples=300, deadline=None)
    def test_strict_refuses_every_damaged_packet(self, packet: bytes, data: st.DataObject) -> None:
        with pytest.raises(PacketError):
            unpack(data.draw(damaged(packet)), PLAN, "strict")

    @given(data=st.data())
    @settings(max_examples=300, deadline=None)
    def test_tolerant_refuses_a_damaged_header_or_length_and_nothing_else(
        self, packet: bytes, data: st.DataObject
    ) -> None:
        broken = data.draw(damaged(packet))
        start = packet_layout(packet).header[1]
        if broken[:start] == packet[:start] and len(broken) == len(packet):
            state = unpack(broken, PLAN, "tolerant")
            first, end = packet_layout(packet).latents
            assert state.latents.numpy().tobytes() == broken[first:end]
        else:
            with pytest.raises(PacketError):
                unpack(broken, PLAN, "tolerant")

    def test_a_body_of_another_length_is_refused_with_both_lengths(self, packet: bytes) -> None:
        first, end = packet_layout(packet).latents[0], len(packet)
        for broken, length in ((packet[:-1], end - first - 1), (packet + b"\0", end - first + 1)):
            for delivery in ("strict", "tolerant"):
                with pytest.raises(PacketError, match=f"has {length} bytes, the header says {end - first}"):
                    unpack(broken, PLAN, delivery)


def test_bit_errors_in_the_body_reach_the_latents_as_they_are() -> None:
    """Bit 30 of the first value, its highest exponent bit, is flipped: nothing else changes."""
    data = bytearray(EXACT)
    data[packet_layout(EXACT).latents[0] + 3] ^= 0x40
    state = unpack(bytes(data), PLAN, "tolerant")
    expected = STATE.latents.clone()
    expected.view(torch.int32)[0, 0, 0, 0] ^= 1 << 30
    assert torch.equal(state.latents.view(torch.int32), expected.view(torch.int32))
    assert same(state.history, STATE.history)
