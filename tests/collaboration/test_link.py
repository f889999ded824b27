"""The simulated link of a run: its settings, and the records of a generation over it."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from fedaigc.collaboration.link import LinkReport, Member, SimulatedLink
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.diffusion.handoff.packing import pack
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.diffusion.schedule.plan import build_plan


@pytest.fixture(scope="module")
def packet(pipe: Any) -> bytes:
    plan = build_plan(pipe, num_inference_steps=11, guidance_scale=5.0, height=64, width=64, base_hash="b")
    return pack(initial_state(pipe, plan, 0), plan, "latents", "fixed8-gray")


def send(link: SimulatedLink, packet: bytes, task_id: str = "task") -> tuple[bytes, LinkReport]:
    member = Member(task_id, 0)
    return link.send({member: packet})[member]


def test_a_perfect_link_by_default(packet: bytes) -> None:
    arrived, report = send(SimulatedLink(LinkSettings(), 0), packet)
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
def test_a_link_repeats_for_a_task_and_differs_between_tasks(packet: bytes, settings: dict[str, Any]) -> None:
    link = SimulatedLink(LinkSettings(**settings), 3)
    first, report = send(link, packet, "one")
    assert send(link, packet, "one") == (first, report)
    assert send(link, packet, "two")[0] != first
    assert len(first) == len(packet)
    assert report.bit_errors > 0
    assert report.bits_on_air > report.information_bits
    assert report.latency_s > 0


def test_distance_costs_rate_and_energy(packet: bytes) -> None:
    near, far = (
        send(SimulatedLink(LinkSettings(distance_m=metres, tx_power_w=0.01), 0), packet)[1]
        for metres in (30.0, 300.0)
    )
    assert near.snr_db is not None
    assert far.snr_db is not None
    assert near.snr_db - far.snr_db == pytest.approx(21)
    assert far.bits_on_air > near.bits_on_air
    assert far.latency_s > near.latency_s
    assert far.send_j > near.send_j
    assert far.receive_j > near.receive_j


def test_a_multicast_goes_once_at_its_worst_members_rate(packet: bytes) -> None:
    """30 m, 100 m and 300 m: three packets of their own, or one that all hear."""
    settings: dict[str, Any] = {"distance_m": (30.0, 100.0, 300.0), "tx_power_w": 0.01, "bandwidth_hz": 2e6}
    members = [Member(f"task {client}", client) for client in range(3)]
    apart, together = (
        [
            report
            for _, report in SimulatedLink(LinkSettings(**settings, multicast=multicast), 0)
            .send(dict.fromkeys(members, packet))
            .values()
        ]
        for multicast in (False, True)
    )
    assert [report.members for report in together] == [3, 3, 3]
    assert {report.scheme for report in together} == {apart[2].scheme} != {apart[0].scheme}
    assert len({report.bits_on_air for report in together}) == 1
    assert together[0].send_j < sum(report.send_j for report in apart)
    # the near one listens longer than it would have to
    assert together[0].receive_j > apart[0].receive_j


FADING: dict[str, Any] = {"snr_db": 12.0, "rayleigh": True, "speed_m_s": 1.0, "send_above_db": 11.0}


def test_a_sender_waits_for_a_better_channel_within_its_deadline() -> None:
    link = SimulatedLink(LinkSettings(**FADING, wait_steps=2), 0)
    left = [link.departure(Member(f"task {i}", 0, 3), (4, 5, 6)) for i in range(400)]
    # 11 dB under a mean of 12: P(|h|^2 >= 10^-0.1) = 0.452; 0.05 s later the channel is nearly a new one
    shares = [left.count(step) / len(left) for step in (3, 4, 5, 6)]
    assert shares[0] == pytest.approx(0.452, abs=0.08)
    assert shares[1] == pytest.approx(0.548 * 0.452, abs=0.08)
    assert shares[3] == 0
    assert SimulatedLink(LinkSettings(), 0).departure(Member("task", 0, 3), (4, 5)) == 3
    assert link.departure(Member("task", 0, 3), ()) == 3


def test_a_packet_that_waited_crosses_the_fade_it_waited_for(packet: bytes) -> None:
    link = SimulatedLink(LinkSettings(**FADING, wait_steps=6), 0)
    members = [Member(f"task {i}", 0, 3) for i in range(30)]
    waited = [replace(m, step=link.departure(m, range(4, 10))) for m in members]
    reports = [report for _, report in link.send(dict.fromkeys(waited, packet)).values()]
    good = [report for report in reports if report.snr_db is not None and report.snr_db >= 11.0]
    # six chances more: all but 0.548^7 of them find one
    assert len(good) >= 27
    at_once = [report.bits_on_air for _, report in link.send(dict.fromkeys(members, packet)).values()]
    assert sum(report.bits_on_air for report in reports) < sum(at_once)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"multicast": True, "max_transmissions": 2}, "max_transmissions"),
        ({"send_above_db": 3.0, "snr_db": 9.0}, "rayleigh"),
        ({**FADING, "multicast": True}, "multicast"),
        ({"distance_m": []}, "distance_m"),
        ({"snr_db": 3.0, "distance_m": 10.0}, "set only one of them"),
        ({"scheme": "mcs-5"}, "mcs-6"),
        ({"protected_planes": 2, "number_format": None}, "number_format"),
        ({"bit_error_rate": 1.5}, "less than or equal to 1"),
        ({"snr": 3.0}, "snr"),
        ({"snr_db": -4000.0, "full_chain": True}, "greater than or equal to -100"),
        ({"distance_m": 1e300}, "less than or equal to 1000000"),
        ({"distance_m": 9.0, "tx_power_w": 1e-300}, "greater than or equal to 0.000000001"),
        ({"repair": "noise-matched"}, "the same flip rate"),
        ({"repair": "noise-matched", "snr_db": 9.0}, "the same flip rate"),
        ({"repair": "noise-matched", "snr_db": 9.0, "scheme": "uncoded-qpsk", "rayleigh": True}, "rayleigh"),
        ({"repair": "noise-matched", "bit_error_rate": 0.5}, "less than 0.5"),
        ({"repair": "noise-matched", "bit_error_rate": 0.1, "number_format": "float16"}, "fixed-point"),
        ({"bit_error_rate": 0.02, "scheme": "mcs-8", "rayleigh": True}, "scheme and rayleigh have no effect"),
        ({"multicast": True}, "multicast has no effect without a radio"),
        ({"bit_error_rate": 0.02, "protected_planes": 2}, "protected_planes has no effect"),
        ({"bit_error_rate": 0.02, "max_transmissions": 3}, "max_transmissions has no effect"),
        (
            {"snr_db": 9.0, "scheme": "uncoded-qpsk", "failed_block": "erase"},
            "failed_block .* without a code",
        ),
        ({"snr_db": 9.0, "speed_m_s": 1.0}, "speed_m_s .* without fades"),
        ({"snr_db": 9.0, "wait_steps": 2}, "wait_steps .* without send_above_db"),
        ({"snr_db": True}, "valid number"),
        ({"distance_m": [30, True]}, "valid number"),
    ],
)
def test_what_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        LinkSettings(**wrong)


def test_a_settled_link_can_be_written_and_read_again() -> None:
    """All keys are written, including those with default values, and TOML's integers count as numbers."""
    for given in ({"bit_error_rate": 0.02}, {"distance_m": [30, 100]}, {**FADING, "wait_steps": 2}, {}):
        settings = LinkSettings.model_validate(given)
        assert LinkSettings.model_validate_json(settings.model_dump_json()) == settings


def test_a_receiver_knows_the_rate_of_flips_by_which_it_matches_the_noise(packet: bytes) -> None:
    """The rate that it assumes for an uncoded scheme is that of the link."""
    settings = LinkSettings(repair="noise-matched", snr_db=6.0, scheme="uncoded-16qam")
    assert settings.known_errors is not None
    assert settings.mend == "clip"
    link = SimulatedLink(settings, 0)
    reports = [send(link, packet, f"task {i}")[1] for i in range(40)]
    flipped = sum(report.bit_errors for report in reports) / sum(r.information_bits for r in reports)
    # 655,360 bits: 0.001 is more than two standard deviations at any rate
    assert flipped == pytest.approx(settings.known_errors.rate, abs=0.001)
    told = LinkSettings(repair="noise-matched", bit_error_rate=0.03).known_errors
    assert told is not None
    assert told.rate == 0.03
    assert LinkSettings(bit_error_rate=0.03).known_errors is None
