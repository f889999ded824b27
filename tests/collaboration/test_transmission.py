"""Packets over channels: numbers of bits, and what the receiver gets."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.collaboration.transmission import transmit
from fedaigc.diffusion.handoff.packing import (
    body_tensors,
    mended,
    number_format_at,
    pack,
    packet_layout,
    unpack,
)
from fedaigc.diffusion.sampling.segment import DenoisingState, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan, latents_std
from fedaigc.errors import PacketError
from fedaigc.rng import numpy_rng
from fedaigc.wireless.block_code import MCS, Scheme
from fedaigc.wireless.channel import BinarySymmetricChannel, Channel, PerfectChannel
from fedaigc.wireless.modulation import Modulation
from fedaigc.wireless.number_format import FORMAT_NAMES, FormatName
from fedaigc.wireless.protection import UnequalChannel
from fedaigc.wireless.radio import RadioChannel, Transmission
from fedaigc.wireless.repair import Repair, repair


@pytest.fixture(scope="module")
def half_way(pipe: Any) -> tuple[DenoisingState, DenoisingPlan]:
    """The embedded model's state after 5 of 11 steps, and its plan."""
    plan = build_plan(pipe, num_inference_steps=11, guidance_scale=5.0, height=64, width=64, base_hash="b")
    state = run_segment(pipe, initial_state(pipe, plan, 0), {"prompt": "a fruit on a table"}, plan, 5)
    return state, plan


def history_of(state: DenoisingState) -> Mapping[str, Any]:
    assert state.history is not None
    return state.history


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_a_format_costs_its_bits_and_its_rounding(
    half_way: tuple[DenoisingState, DenoisingPlan], name: FormatName
) -> None:
    state, plan = half_way
    packet = pack(state, plan, "latents", name)
    latents = body_tensors(packet)[0]
    number_format = number_format_at(name, plan, 5)
    assert latents.number_format == number_format
    assert latents.span[1] - latents.span[0] == state.latents.numel() * number_format.width // 8
    found = unpack(packet, plan).latents
    expected = number_format.from_bits(number_format.to_bits(state.latents.reshape(-1)))
    assert torch.equal(found.reshape(-1), expected)
    limit = number_format.limit
    assert float((found.clamp(-limit, limit) - state.latents.clamp(-limit, limit)).abs().max()) < 0.02


def test_the_limit_follows_the_plan(half_way: tuple[DenoisingState, DenoisingPlan]) -> None:
    """The latents' measured deviation is near the plan's, so that 4 of them reach nearly all values."""
    state, plan = half_way
    assert latents_std(plan, 5) == pytest.approx(float(state.latents.std()), rel=0.25)
    assert float((state.latents.abs() <= 4 * latents_std(plan, 5)).float().mean()) > 0.995


def test_history_goes_in_the_format_too(half_way: tuple[DenoisingState, DenoisingPlan]) -> None:
    """A multistep scheduler's history: each tensor with its own limit, in fewer bits than as computed."""
    state, plan = half_way
    history: dict[str, Any] = {"model_outputs": [torch.randn(1, 8, 16, 16) * 3, None], "order": 2}
    state = replace(state, history=history)
    plain, short = pack(state, plan, "exact"), pack(state, plan, "exact", "fixed8")
    assert [t.number_format is None for t in body_tensors(plain)] == [True, True]
    number_format = body_tensors(short)[1].number_format
    assert number_format is not None
    assert number_format.limit == float(history["model_outputs"][0].abs().max())
    assert len(short) < len(plain) / 3
    found = history_of(unpack(short, plan))["model_outputs"]
    assert found[1] is None
    assert float((found[0] - history["model_outputs"][0]).abs().max()) < 0.1


@pytest.mark.parametrize("format_name", [None, *FORMAT_NAMES])
def test_the_perfect_channel_delivers_the_packet(
    half_way: tuple[DenoisingState, DenoisingPlan], format_name: FormatName | None
) -> None:
    state, plan = half_way
    packet = pack(state, plan, "latents", format_name)
    sent = transmit(packet, lambda _: PerfectChannel(), numpy_rng(0, "perfect"))
    assert sent.packet == packet
    assert not sent.damaged
    assert sent.serialized_bits == 8 * len(packet)
    assert sent.information_bits == 8 * np.subtract(*packet_layout(packet).latents[::-1])


@pytest.mark.parametrize("format_name", ["fixed8", "fixed8-gray", "float32", None])
def test_errors_land_in_the_latents_alone(
    half_way: tuple[DenoisingState, DenoisingPlan], format_name: FormatName | None
) -> None:
    state, plan = half_way
    packet = pack(state, plan, "latents", format_name)
    sent = transmit(packet, lambda _: BinarySymmetricChannel(0.02), numpy_rng(0, "flips"))
    rate = sent.bit_errors / sent.information_bits
    assert abs(rate - 0.02) < 5 * np.sqrt(0.02 * 0.98 / sent.information_bits)
    with pytest.raises(PacketError, match="damaged body"):
        unpack(sent.packet, plan)
    found = unpack(sent.packet, plan, "tolerant")
    assert isinstance(found, DenoisingState)
    assert found.step == 5
    finite = torch.isfinite(found.latents).all()
    assert bool(finite) == (format_name in ("fixed8", "fixed8-gray"))
    for how in ("clip", "zero"):
        assert bool((repair(found.latents, 4.0, how).abs() <= 4.0).all())


def test_a_history_counts_among_the_bits_that_may_be_wrong(
    half_way: tuple[DenoisingState, DenoisingPlan],
) -> None:
    """Latents and one earlier output, 2,048 values each: errors by information bits are the channel rate."""
    state, plan = half_way
    history: dict[str, Any] = {"model_outputs": [None, torch.randn(1, 8, 16, 16)]}
    packet = pack(replace(state, history=history), plan, "exact", "fixed8")
    sent = transmit(packet, lambda _: BinarySymmetricChannel(0.02), numpy_rng(0, "flips"))
    assert sent.information_bits == 2 * 2048 * 8
    # four standard deviations of a mean over 32,768 bits
    assert sent.bit_errors / sent.information_bits == pytest.approx(0.02, abs=0.0031)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(0, 1),
    format_name=st.sampled_from([None, "float16", "float32", "fixed8"]),
    how=st.sampled_from(["clip", "zero", "nothing"]),
)
def test_nothing_that_is_not_finite_is_ever_denoised(
    half_way: tuple[DenoisingState, DenoisingPlan],
    seed: int,
    rate: float,
    format_name: FormatName | None,
    how: Repair,
) -> None:
    """Latents and history at any rate of bit errors are repaired, or refused if no repair is configured."""
    state, plan = half_way
    history: dict[str, Any] = {
        "model_outputs": [None, torch.randn(1, 8, 16, 16)],
        "sigmas": torch.arange(900.0, 903.0),
    }
    packet = pack(replace(state, history=history), plan, "exact", format_name)
    arrived = transmit(packet, lambda _: BinarySymmetricChannel(rate), np.random.default_rng(seed)).packet
    received = unpack(arrived, plan, "tolerant")
    whole = bool(
        torch.isfinite(received.latents).all()
        and torch.isfinite(history_of(received)["model_outputs"][1]).all()
    )
    if how == "nothing" and not whole:
        with pytest.raises(PacketError, match="not finite"):
            mended(received, plan, how)
        return
    found = mended(received, plan, how)
    earlier = history_of(found)["model_outputs"][1]
    assert bool(torch.isfinite(found.latents).all())
    assert bool(torch.isfinite(earlier).all())
    assert torch.equal(history_of(found)["sigmas"], history["sigmas"])
    if how != "nothing":
        assert float(earlier.abs().max()) <= 8 * max(latents_std(plan, step) for step in range(6)) + 1e-4


def test_what_arrived_whole_is_not_mended(half_way: tuple[DenoisingState, DenoisingPlan]) -> None:
    """The repairs leave the history of a guided run with a multistep sampler as it is."""
    state, plan = half_way
    history: dict[str, Any] = {"model_outputs": [torch.randn(1, 8, 16, 16).clamp(-4, 4)]}
    found = mended(replace(state, history=history), plan, "clip")
    assert torch.equal(history_of(found)["model_outputs"][0], history["model_outputs"][0])


def test_what_was_erased_is_filled_in(half_way: tuple[DenoisingState, DenoisingPlan]) -> None:
    """With every block lost all values are unknown: the middle of the range."""
    state, plan = half_way
    packet = pack(state, plan, "latents", "fixed8")
    channel = RadioChannel(Transmission(MCS[8], 2, "erase"), -15.0)
    sent = transmit(packet, lambda _: channel, numpy_rng(0, "lost"))
    assert sent.erased_bits == sent.information_bits
    assert sent.bit_errors == 0
    limit = number_format_at("fixed8", plan, 5).limit
    assert torch.allclose(unpack(sent.packet, plan, "tolerant").latents, torch.tensor(limit / 256))


def test_unequal_protection_hurts_less_at_the_same_bits(
    half_way: tuple[DenoisingState, DenoisingPlan],
) -> None:
    """Two planes in QPSK and six in 64-QAM against all in 16-QAM: fewer large errors at 9 dB."""
    state, plan = half_way
    packet = pack(state, plan, "latents", "fixed8")

    def error(channel: Channel) -> float:
        sent = transmit(packet, lambda _: channel, numpy_rng(0, "unequal"))
        received = unpack(sent.packet, plan, "tolerant").latents
        return float((received - state.latents).square().mean())

    def uncoded(modulation: Modulation) -> RadioChannel:
        return RadioChannel(Transmission(Scheme(modulation, None)), 9.0)

    unequal = UnequalChannel(8, (2, 6), (uncoded("qpsk"), uncoded("64qam")))
    assert error(unequal) < error(uncoded("16qam"))
