"""Fading over time, compared with Clarke's model."""

import numpy as np
import pytest
from scipy.special import j0

from fedaigc.rng import numpy_rng
from fedaigc.wireless.fading import energies_over_time


def test_fades_over_time_follow_clarke() -> None:
    """Mean energy 1, and |h|^2 correlated by J0^2. Following a fade further does not change its beginning."""
    times, shift_hz = np.array([0.0, 0.01, 0.02, 0.5]), 12.0
    drawn = np.array([energies_over_time(times, shift_hz, numpy_rng(0, "fade", i)) for i in range(8000)])
    assert drawn.mean(axis=0) == pytest.approx(np.ones(4), abs=0.05)
    expected = j0(2 * np.pi * shift_hz * np.subtract.outer(times, times)) ** 2
    assert np.corrcoef(drawn.T) == pytest.approx(expected, abs=0.05)
    again = energies_over_time(times[:2], shift_hz, numpy_rng(0, "fade", 0))
    assert again == pytest.approx(drawn[0, :2])
    # at rest, one gain for ever
    still = energies_over_time(times, 0.0, numpy_rng(0, "fade", 0))
    assert still == pytest.approx(np.full(4, still[0]), rel=1e-3)
