"""Powers, seconds and joules, by hand."""

from typing import Any

import pytest

from fedaigc.errors import UserError
from fedaigc.wireless.link_budget import RadioLink, RadioPower


def test_the_snr_of_a_link_by_hand() -> None:
    """100 m at 3.5 GHz: 32.4 + 42 + 10.881 = 85.281 dB. 0.1 W is 20 dBm, the noise of 1 MHz -114 + 7 dBm."""
    link = RadioLink(distance_m=100, tx_power_w=0.1)
    assert link.path_loss_db == pytest.approx(85.281, abs=1e-3)
    assert link.snr_db == pytest.approx(20 - 85.281 + 107, abs=1e-3)


def test_ten_times_the_power_is_10_db_and_ten_times_the_distance_costs_21() -> None:
    near, loud = RadioLink(10, 0.1), RadioLink(10, 1.0)
    assert loud.snr_db - near.snr_db == pytest.approx(10)
    assert near.snr_db - RadioLink(100, 0.1).snr_db == pytest.approx(21)
    hidden = [RadioLink(metres, 0.1, line_of_sight=False).snr_db for metres in (10, 100)]
    assert hidden[0] - hidden[1] == pytest.approx(31.9)


def test_time_and_energy_by_hand() -> None:
    """86,000 symbols at 1 MHz less 14 %: 0.1 s; a second transmission waits 8 ms."""
    link = RadioLink(10, 0.2)
    assert link.airtime_s(86_000) == pytest.approx(0.1)
    assert link.latency_s(86_000, transmissions=2) == pytest.approx(0.108)
    power = RadioPower(tx_power_w=0.2, amplifier_efficiency=0.4, circuit_w=0.5, receive_w=0.3)
    assert power.send_energy_j(0.1) == pytest.approx(0.1)
    assert power.receive_energy_j(0.1) == pytest.approx(0.03)


@pytest.mark.parametrize(
    "wrong", [{"distance_m": 0.5}, {"tx_power_w": 0.0}, {"overhead": 1.0}, {"bandwidth_hz": float("nan")}]
)
def test_what_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        RadioLink(**({"distance_m": 10.0, "tx_power_w": 0.1} | wrong))
