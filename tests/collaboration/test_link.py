"""The simulated link of a run: its settings, and what a generation over it records."""

import pytest
from pydantic import ValidationError

from fedaigc.collaboration.link import LinkSettings, SimulatedLink
from fedaigc.diffusion.handoff import pack
from fedaigc.diffusion.plan import build_plan
from fedaigc.diffusion.segment import initial_state


@pytest.fixture(scope="module")
def packet(pipe) -> bytes:
    plan = build_plan(pipe, num_inference_steps=11, guidance_scale=5.0, height=64, width=64, base_hash="b")
    return pack(initial_state(pipe, plan, 0), plan, "latents", "fixed8-gray")


def test_a_perfect_link_by_default(packet: bytes) -> None:
    arrived, report = SimulatedLink(LinkSettings(), 0).send(packet, "task")
    assert arrived == packet
    assert (report.scheme, report.bit_errors, report.erased_bits) == ("perfect", 0, 0)
    assert report.serialized_bits == 8 * len(packet)
    assert report.information_bits == 8 * 8 * 16 * 16


@pytest.mark.parametrize(
    "settings",
    [
        {"bit_error_rate": 0.02},
        {"snr_db": 9.0, "scheme": "uncoded-16qam"},
        {"snr_db": 9.0, "scheme": "uncoded-16qam", "rayleigh": True, "speed_m_s": 10.0},
        {"snr_db": 7.0, "scheme": "mcs-8", "full_chain": True},
        {"snr_db": 9.0, "scheme": "uncoded-64qam", "protected_planes": 2, "full_chain": True},
    ],
    ids=str,
)
def test_a_link_repeats_for_a_task_and_differs_between_tasks(packet: bytes, settings: dict) -> None:
    link = SimulatedLink(LinkSettings(**settings), 3)
    first, report = link.send(packet, "one")
    assert link.send(packet, "one") == (first, report)
    assert link.send(packet, "two")[0] != first
    assert len(first) == len(packet)
    assert report.bit_errors > 0
    assert report.bits_on_air > report.information_bits
    assert report.latency_s > 0


def test_distance_costs_rate_and_energy(packet: bytes) -> None:
    near, far = (
        SimulatedLink(LinkSettings(distance_m=metres, tx_power_w=0.01), 0).send(packet, "task")[1]
        for metres in (30.0, 300.0)
    )
    assert near.snr_db is not None
    assert near.snr_db - far.snr_db == pytest.approx(21)
    assert far.bits_on_air > near.bits_on_air
    assert far.latency_s > near.latency_s
    assert far.send_j > near.send_j
    assert far.receive_j > near.receive_j


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"snr_db": 3.0, "distance_m": 10.0}, "give one of them"),
        ({"scheme": "mcs-5"}, "mcs-6"),
        ({"protected_planes": 2, "number_format": None}, "number_format"),
        ({"bit_error_rate": 1.5}, "less than or equal to 1"),
        ({"snr": 3.0}, "snr"),
    ],
)
def test_what_is_refused(wrong: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        LinkSettings(**wrong)
