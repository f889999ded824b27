"""Packets: their content, what is refused, and the effect of continuing without the history."""

import hashlib
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fedaigc.diffusion.handoff.packet import write_packet
from fedaigc.diffusion.handoff.packing import (
    Delivery,
    Handoff,
    PacketError,
    check_handoff,
    pack,
    packet_layout,
    unpack,
)
from fedaigc.diffusion.sampling.segment import DenoisingState, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from tests.diffusion.schedule.test_plan import PLAN
from tests.diffusion.schedulers import scheduler_of
from tests.diffusion.tiny_pipelines import SIZE, Tiny

PROMPT = {"prompt": "an apple on a table"}
PREFIX = 42
# an ancestral multistep state, hand-made: every kind of value that a history may hold
STATE = DenoisingState(
    step=1,
    latents=torch.randn((2, 4, 4, 4), generator=torch.Generator().manual_seed(1)),
    history={
        "counter": 3,
        "flag": True,
        "nothing": None,
        "name": "x",
        "ratio": 0.1,
        "limit": -float("inf"),
        "scalar": torch.tensor(0.25, dtype=torch.float64),
        "timesteps_seen": [None, torch.tensor(981)],
        "model_outputs": [None, torch.randn((2, 4, 4, 4), generator=torch.Generator().manual_seed(2))],
        "sample": torch.randn((2, 4, 4, 4), generator=torch.Generator().manual_seed(3)).bfloat16(),
    },
    noise_seed=2**63 + 1,
    draw_count=2,
    plan_fingerprint=PLAN.fingerprint(),
)
EXACT = pack(STATE, PLAN, "exact", noise_stream=True)
LATENTS = pack(STATE, replace(PLAN), "latents", noise_stream=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def plan_of(pipe: Any, scheduler: str, steps: int = 4) -> DenoisingPlan:
    pipe.scheduler = scheduler_of("sd1", scheduler)
    return build_plan(
        pipe, num_inference_steps=steps, guidance_scale=4.0, height=SIZE, width=SIZE, base_hash="base"
    )


def forged(**changes: Any) -> bytes:
    """A packet of other header entries, with checksums that fit: a faulty or hostile machine's."""
    length = struct.unpack_from("<I", EXACT, 6)[0]
    header = json.loads(EXACT[PREFIX : PREFIX + length])
    for name, value in changes.items():
        header.pop(name, None)
        if value is not None:
            header[name] = value
    return sealed(json.dumps(header).encode(), EXACT[PREFIX + length :])


def sealed(header: bytes, body: bytes, version: int = 1) -> bytes:
    prefix = struct.pack("<4sHI", b"FAGC", version, len(header))
    return prefix + hashlib.sha256(prefix + header).digest() + header + body


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
        back = unpack(pack(replace(STATE, latents=latents), PLAN), PLAN).latents
        assert back.dtype == kind
        assert torch.equal(back.view(raw.dtype).flatten(), raw)

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
        with pytest.raises(UserError, match="EulerAncestralDiscreteScheduler draws noise"):
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


class TestHandOffOfLatents:
    """Return the relative error of the result against the stock run if the history is dropped at K."""

    @pytest.mark.parametrize("scheduler", ["DDIM", "Euler", "EulerAncestral", "DDPM", "LCM"])
    def test_one_step_schedulers_lose_nothing(self, tiny: Tiny, scheduler: str) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler)
        start = initial_state(pipe, plan, 5)
        whole = run_segment(pipe, start, PROMPT, plan, plan.num_steps).latents
        for k in range(plan.num_steps + 1):
            state = run_segment(pipe, start, PROMPT, plan, k)
            state = unpack(pack(state, plan, "latents", noise_stream=True), plan)
            assert torch.equal(run_segment(pipe, state, PROMPT, plan, plan.num_steps).latents, whole)

    @pytest.mark.parametrize(("scheduler", "steps"), [("Heun", 4), ("KDPM2Ancestral", 3)])
    def test_two_evaluation_schedulers_lose_nothing_between_their_steps(
        self, tiny: Tiny, scheduler: str, steps: int
    ) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler, steps)
        state = start = initial_state(pipe, plan, 5)
        whole = run_segment(pipe, start, PROMPT, plan, plan.num_steps).latents
        for k in range(plan.num_steps):
            state = run_segment(pipe, state, PROMPT, plan, k)
            if k % 2 == 0:
                resumed = unpack(pack(state, plan, "latents", noise_stream=True), plan)
                assert torch.equal(run_segment(pipe, resumed, PROMPT, plan, plan.num_steps).latents, whole)
            else:
                with pytest.raises(UserError, match="inside one of the two-evaluation steps"):
                    pack(state, plan, "latents")

    @pytest.mark.parametrize("scheduler", ["PNDM", "DPM++2M", "UniPC", "DEIS", "DPM++3M-Karras"])
    def test_multistep_schedulers_restart_at_first_order(self, tiny: Tiny, scheduler: str) -> None:
        """The end differs from the unsplit run, and by less than another prompt makes."""
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler, steps=8)
        start = initial_state(pipe, plan, 5)
        whole = run_segment(pipe, start, PROMPT, plan, plan.num_steps).latents
        other = run_segment(pipe, start, {"prompt": "a lemon near a bed"}, plan, plan.num_steps).latents
        for k in (2, 4, 6):
            state = run_segment(pipe, start, PROMPT, plan, k)
            exact = run_segment(pipe, unpack(pack(state, plan), plan), PROMPT, plan, plan.num_steps)
            assert torch.equal(exact.latents, whole)
            alone = unpack(pack(state, plan, "latents"), plan)
            restarted = run_segment(pipe, alone, PROMPT, plan, plan.num_steps).latents
            error = (restarted - whole).norm()
            assert 1e-4 * whole.norm() < error < (other - whole).norm()

    def test_the_restarted_step_is_of_first_order(self, tiny: Tiny) -> None:
        """PNDM without history takes DDIM's step, x' = a x - b e(x), from the same latents."""
        pipe = tiny("sd1")
        plan = plan_of(pipe, "PNDM", steps=8)
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 4)
        restarted = run_segment(pipe, replace(state, history=None), PROMPT, plan, 5)
        ddim = plan_of(pipe, "DDIM", steps=8)
        assert ddim.timesteps[3] == plan.timesteps[4]
        same_place = DenoisingState(3, state.latents, None, 5, 1, ddim.fingerprint())
        expected = run_segment(pipe, same_place, PROMPT, ddim, 4).latents
        assert torch.allclose(restarted.latents, expected, rtol=1e-4, atol=1e-4)
        exact = run_segment(pipe, state, PROMPT, plan, 5).latents
        assert (exact - expected).abs().max() > 100 * (restarted.latents - expected).abs().max()

    @pytest.mark.parametrize(
        ("scheduler", "step", "reason"),
        [
            ("PNDM", 1, "first, two-evaluation step"),
            ("PNDM-Runge-Kutta", 3, "Runge-Kutta"),
            ("LMS", 2, "nothing is known about LMSDiscreteScheduler"),
            ("DPM-singlestep", 2, "nothing is known"),
        ],
    )
    def test_where_latents_alone_cannot_go_on(
        self, tiny: Tiny, scheduler: str, step: int, reason: str
    ) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler)
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, step)
        for attempt in (
            lambda: check_handoff(plan, step, "latents"),
            lambda: pack(state, plan, "latents"),
            lambda: run_segment(pipe, replace(state, history=None), PROMPT, plan, plan.num_steps),
        ):
            with pytest.raises(UserError, match=reason):
                attempt()
        check_handoff(plan, step, "exact")

    def test_a_lost_history_cannot_be_handed_on_as_exact(self) -> None:
        with pytest.raises(UserError, match="only be handed on as latents"):
            pack(unpack(LATENTS, PLAN), PLAN, "exact")


@pytest.mark.parametrize(
    ("scheduler", "kept"),
    [
        ("DDIM", 0),
        ("Euler", 0),
        ("EulerAncestral", 0),
        ("Heun", 2),
        ("DPM++2M", 2),
        ("UniPC", 3),
        ("PNDM", 4),
    ],
)
def test_what_the_history_costs(tiny: Tiny, scheduler: str, kept: int) -> None:
    """Whole latents beside the latents: none for one-step methods, two inside Heun's pair, four for PNDM."""
    pipe = tiny("sd1")
    plan = plan_of(pipe, scheduler, steps=8)
    state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 7)
    layout = packet_layout(pack(state, plan))
    latents, history = (end - first for first, end in (layout.latents, layout.history))
    assert history == kept * latents


def test_write_packet_lists_history_in_name_order() -> None:
    """So that the same history, gathered in another order, is the same packet."""
    latents = torch.ones(1, 4)
    values = {"a": torch.zeros(32), "b": torch.ones(32)}
    assert write_packet({}, latents, values) == write_packet({}, latents, dict(reversed(values.items())))
