"""A damage curve: rungs add up to the hand-off's damage, and a radius is where the tolerance ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.planning.curve import DamageCurve
from tests.planning.cases import line_curve, planned
from tests.semantics.denoiser.test_calibration import calibration


@given(planned(), st.floats(0, 9))
def test_rungs_add_up_to_the_damage_of_the_hand_off(drawn: object, distance: float) -> None:
    curve = drawn[1].curve  # type: ignore[index]
    total = np.zeros(1)
    for rung in range(len(curve.ladder)):
        total = total + curve.added(rung, np.array([distance]))
        assert total == pytest.approx(curve.damage(rung, np.array([distance])))


def test_the_radius_is_where_the_tolerance_ends() -> None:
    curve = line_curve()
    assert curve.radius(0, 0.04) == pytest.approx(2.0)
    assert curve.radius(1, 0.04) == pytest.approx(1.0)
    assert curve.radius(1, 5.0) == 10.0
    assert DamageCurve(6, (2,), np.array([0.0, 1.0]), np.array([[0.1, 0.2]])).radius(0, 0.05) < 0


def test_nothing_is_allowed_beyond_the_last_knot() -> None:
    assert np.isinf(line_curve().damage(0, np.array([10.1]))).all()


def test_a_calibration_allows_the_same_hand_offs() -> None:
    measured = calibration()
    curve = DamageCurve.of(measured)
    for distance in np.linspace(0, 12, 25):
        within = [
            k for rung, k in enumerate(curve.ladder) if curve.damage(rung, np.array([distance]))[0] <= 0.3
        ]
        reached = distance <= measured.knots[-1]
        allowed = [k for k in measured.handoffs if reached and measured.damage(k, float(distance))[2] <= 0.3]
        assert max(within, default=0) == max(allowed, default=0)
    assert DamageCurve.of(measured, (2, 8)).ladder == (2, 8)
    with pytest.raises(UserError, match="damage was measured at"):
        DamageCurve.of(measured, (3,))


@pytest.mark.parametrize(
    ("ladder", "knots", "upper"),
    [
        ((3, 2), [0, 1], [[0, 1], [0, 1]]),
        ((6,), [0, 1], [[0, 1]]),
        ((2,), [1, 2], [[0, 1]]),
        ((2,), [0, 1], [[1, 0]]),
        ((2, 3), [0, 1], [[0, 2], [0, 1]]),
        ((2,), [0, 1], [[0, float("nan")]]),
    ],
)
def test_what_is_no_curve_is_refused(
    ladder: tuple[int, ...], knots: list[float], upper: list[list[float]]
) -> None:
    with pytest.raises(UserError):
        DamageCurve(6, ladder, np.array(knots, float), np.array(upper, float))
