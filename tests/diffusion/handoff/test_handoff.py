"""Packets: their content, and what is refused."""

import json
import struct
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fedaigc.diffusion.handoff.header import PacketHeader
from fedaigc.diffusion.handoff.packet import read_body, write_packet
from fedaigc.diffusion.handoff.packing import Delivery, Handoff, pack, packet_layout, unpack
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.errors import PacketError, UserError
from tests.diffusion.handoff.packets import (
    EXACT,
    LATENTS,
    PREFIX,
    PROMPT,
    STATE,
    forged,
    plan_of,
    same,
    sealed,
)
from tests.diffusion.schedule.test_plan import PLAN
from tests.diffusion.tiny_pipelines import Tiny


class TestRoundTrip:
    @pytest.mark.parametrize("delivery", ["strict", "tolerant"])
    def test_an_exact_packet_returns_the_state(self, delivery: Delivery) -> None:
        state = unpack(EXACT, PLAN, delivery)
        assert same(state.latents, STATE.latents)
        assert same(state.history, STATE.history)
        for name in ("step", "noise_seed", "draw_count", "plan_fingerprint"):
            assert getattr(state, name) == getattr(STATE, name)

    @pytest.mark.parametrize("delivery", ["strict", "tolerant"])
    def test_a_packet_of_latents_drops_the_history_and_nothing_else(self, delivery: Delivery) -> None:
        state = unpack(LATENTS, PLAN, delivery)
        assert same(state.latents, STATE.latents)
        assert state.history is None
        assert (state.step, state.noise_seed, state.draw_count) == (1, STATE.noise_seed, 2)

    @given(
        bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
        kind=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    )
    def test_every_bit_pattern_survives(self, bits: list[int], kind: torch.dtype) -> None:
        """Also infinities and every NaN, which a number format would merge."""
        size = kind.itemsize
        raw = torch.tensor(bits, dtype=torch.int64).to({2: torch.int16, 4: torch.int32, 8: torch.int64}[size])
        latents = raw.view(kind).reshape(1, -1)
        packet = pack(replace(STATE, latents=latents), PLAN)
        back, _ = read_body(packet, verify=True)
        assert back.dtype == kind
        assert torch.equal(back.view(raw.dtype).flatten(), raw)
        if not bool(torch.isfinite(latents).all()):
            with pytest.raises(PacketError, match="values of the latents are not finite"):
                unpack(packet, PLAN)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("handoff", ["exact", "latents"])
    def test_a_value_that_is_not_finite_is_refused_in_latents_and_in_a_history(
        self, value: float, handoff: Handoff
    ) -> None:
        """Denoised, one such value makes the whole picture black."""
        broken = STATE.latents.clone()
        broken[0, 1, 2, 3] = value
        with pytest.raises(PacketError, match=f"1 of {broken.numel()} values of the latents are not finite"):
            unpack(pack(replace(STATE, latents=broken), PLAN, handoff), PLAN)
        state = replace(STATE, history={**(STATE.history or {}), "ets": [STATE.latents, broken]})
        packet = pack(state, PLAN, handoff)
        if handoff == "latents":
            assert unpack(packet, PLAN).history is None
        else:
            with pytest.raises(PacketError, match="ets in the history are not finite"):
                unpack(packet, PLAN)

    def test_latents_that_are_not_contiguous(self) -> None:
        turned = STATE.latents.permute(0, 2, 3, 1)
        assert not turned.is_contiguous()
        assert torch.equal(unpack(pack(replace(STATE, latents=turned), PLAN), PLAN).latents, turned)

    def test_the_same_state_is_the_same_packet(self) -> None:
        assert pack(STATE, PLAN, noise_stream=True) == EXACT
        assert pack(unpack(EXACT, PLAN), PLAN, noise_stream=True) == EXACT

    def test_the_state_may_be_written_to(self) -> None:
        """The bytes of a packet are shared by all members; their states are not."""
        one, other = unpack(EXACT, PLAN), unpack(EXACT, PLAN)
        one.latents.zero_()
        assert torch.equal(other.latents, STATE.latents)

    @pytest.mark.parametrize("handoff", ["exact", "latents"])
    def test_the_noise_stream_is_carried_only_when_it_is_asked_for(self, handoff: Handoff) -> None:
        """The header of a packet names neither seed nor draws; the rest of the state is the same."""
        packet = pack(STATE, PLAN, handoff)
        state = unpack(packet, PLAN)
        assert (state.noise_seed, state.draw_count) == (None, 0)
        assert same(state.latents, STATE.latents)
        assert str(STATE.noise_seed).encode() not in packet
        assert b"noise" not in packet
        assert b"draw" not in packet

    def test_a_stream_that_did_not_come_cannot_be_handed_on(self) -> None:
        with pytest.raises(UserError, match="has no noise stream"):
            pack(unpack(pack(STATE, PLAN), PLAN), PLAN, noise_stream=True)

    @pytest.mark.parametrize("scheduler", ["EulerAncestral", "DDIM"])
    def test_without_a_stream_no_step_may_draw(self, tiny: Tiny, scheduler: str) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler)
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 2)
        received = unpack(pack(state, plan), plan)
        if scheduler == "DDIM":
            run_segment(pipe, received, PROMPT, plan, 4)
            return
        with pytest.raises(UserError, match="EulerAncestralDiscreteScheduler draws noise in its steps"):
            run_segment(pipe, received, PROMPT, plan, 4)
        run_segment(pipe, received.with_noise_stream(7), PROMPT, plan, 4)

    def test_a_history_that_cannot_be_written_is_refused(self) -> None:
        with pytest.raises(TypeError, match="hook as a function"):
            pack(replace(STATE, history={"hook": lambda: 0}), PLAN)


class TestLayout:
    def test_bytes_are_counted(self) -> None:
        """Latents 2 x 4 x 4 x 4 x 4 bytes = 512; history one more such tensor and one of half the width."""
        layout = packet_layout(EXACT)
        assert layout.header == (0, len(EXACT) - 1280)
        assert layout.latents == (len(EXACT) - 1280, len(EXACT) - 768)
        assert layout.history == (len(EXACT) - 768, len(EXACT))
        first, end = packet_layout(LATENTS).latents
        assert (end - first, packet_layout(LATENTS).history) == (512, (len(LATENTS), len(LATENTS)))

    def test_the_latents_lie_where_the_span_says(self) -> None:
        first, end = packet_layout(EXACT).latents
        assert EXACT[first:end] == STATE.latents.numpy().astype("<f4").tobytes()

    def test_nothing_in_it_is_executable(self) -> None:
        """Header in JSON, body in plain numbers: the bytes are accounted for to the last one."""
        length = struct.unpack_from("<I", EXACT, 6)[0]
        header = json.loads(EXACT[PREFIX : PREFIX + length])
        assert len(EXACT) == PREFIX + length + header["body_bytes"]
        history = STATE.history
        assert history is not None
        numbers = [
            STATE.latents,
            history["model_outputs"][1],
            history["sample"].view(torch.int16),
        ]
        assert EXACT[PREFIX + length :] == b"".join(tensor.numpy().tobytes() for tensor in numbers)


class TestPacketsOfSomethingElse:
    @pytest.mark.parametrize("delivery", ["strict", "tolerant"])
    @pytest.mark.parametrize(
        ("field", "words"),
        [("base_hash", "base model"), ("shared_hash", "shared state"), ("guidance_scale", "plan")],
    )
    def test_another_base_shared_state_or_plan_is_refused_with_both_named(
        self, field: str, words: str, delivery: Delivery
    ) -> None:
        changed: Any = {field: 1.5 if field == "guidance_scale" else "f" * 64}
        other = replace(PLAN, **changed)
        given, expected = (
            (PLAN.fingerprint(), other.fingerprint()) if words == "plan" else (getattr(PLAN, field), "f" * 64)
        )
        with pytest.raises(PacketError, match=f"{words} '{given}', expected {words} '{expected}'"):
            unpack(EXACT, other, delivery)

    def test_another_version_is_refused_with_both_named(self) -> None:
        length = struct.unpack_from("<I", EXACT, 6)[0]
        packet = sealed(EXACT[PREFIX : PREFIX + length], EXACT[PREFIX + length :], version=2)
        with pytest.raises(PacketError, match="version 2, this build reads version 1"):
            unpack(packet, PLAN, "tolerant")

    @pytest.mark.parametrize("data", [b"", b"FAGC", b"\x80\x04pickle" * 20, bytes(1000)])
    def test_other_bytes(self, data: bytes) -> None:
        with pytest.raises(PacketError):
            unpack(data, PLAN)

    @pytest.mark.parametrize(
        "changes",
        [
            {"step": 4},
            {"step": -1},
            {"step": True},
            {"step": "1"},
            {"noise_seed": 2**64},
            {"draw_count": 10**12},
            {"handoff": "pickle"},
            {"handoff": "latents"},
            {"history": []},
            {"history": {"sample": {"shape": [2, 4, 4, 4], "dtype": "float32"}}},
            {"history": {"sample": {"shape": [10**9, 10**9], "dtype": "float32"}}},
            {"history": {"sample": {"shape": [0], "dtype": "float32"}}},
            {"history": {"sample": {"shape": [1], "dtype": "object"}}},
            {"history": {"sample": {"shape": [1], "dtype": []}}},
            {"history": {"sample": {"small": {"shape": [1], "dtype": "float32"}, "bytes": "zz"}}},
            {"history": {"sample": {"small": {"shape": [1], "dtype": "float32"}, "bytes": 7}}},
            {"history": {"ratio": {"float": "one"}}},
            {"latents": {"shape": [1] * 9, "dtype": "float32"}},
            {"latents": {"shape": [128], "dtype": "float32"}},
            {"latents": {"shape": [2, 4, 4, 4], "dtype": "int32"}},
            {"latents": None},
            {"latents": [[1], "float32"]},
            {"plan": 1},
            {"shared": []},
            {"settings": 7},
            {"body_bytes": 0},
            {"extra": 1},
            {"draw_count": None},
        ],
        ids=str,
    )
    def test_headers_with_good_checksums_and_bad_content(self, changes: Any) -> None:
        with pytest.raises(PacketError):
            unpack(forged(**changes), PLAN, "tolerant")

    @pytest.mark.parametrize(
        "header", [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"step": ' + b"9" * 5000 + b"}"]
    )
    def test_headers_that_are_no_object(self, header: bytes) -> None:
        with pytest.raises(PacketError):
            unpack(sealed(header, b""), PLAN)

    def test_an_unknown_delivery_is_a_programming_error(self) -> None:
        with pytest.raises((TypeCheckError, ValueError)):
            unpack(EXACT, PLAN, "loose")  # type: ignore[arg-type]


def test_write_packet_lists_history_in_name_order() -> None:
    """So that the same history, gathered in another order, is the same packet."""
    latents = torch.ones(1, 4)
    values = {"a": torch.zeros(32), "b": torch.ones(32)}
    header = PacketHeader("plan", "base", "shared", "exact", 1)
    assert write_packet(header, latents, values) == write_packet(
        header, latents, dict(reversed(values.items()))
    )
