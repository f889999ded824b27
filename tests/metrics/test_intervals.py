import numpy as np
import pytest

from fedaigc.metrics.intervals import clustered_mean, proportion


def test_wilson_interval_of_8_in_10_by_hand() -> None:
    """z = 1.95996: centre (0.8 + z^2/20) / (1 + z^2/10) = 0.7167, half width 0.2266."""
    estimate = proportion([True] * 8 + [False] * 2)
    assert estimate.mean == 0.8
    assert estimate.low == pytest.approx(0.4902, abs=1e-3)
    assert estimate.high == pytest.approx(0.9433, abs=1e-3)


def test_equal_clusters_widen_the_interval_as_far_as_their_number_says() -> None:
    """Ten copies of each value carry no more than the values: the interval stays that of 30 clusters."""
    values = np.random.default_rng(0).normal(size=30)
    once = clustered_mean(values.tolist(), list(range(30)))
    copied = clustered_mean(np.repeat(values, 10).tolist(), np.repeat(np.arange(30), 10).tolist())
    assert copied.mean == pytest.approx(once.mean)
    assert copied.high - copied.low == pytest.approx(once.high - once.low)


def test_clustered_intervals_cover_the_truth_about_95_times_in_100() -> None:
    """Two-sided: 300 trials with 40 clusters; 99.9 % of binomial(300, 0.95) lies within 270 to 297."""
    hits = 0
    for trial in range(300):
        random = np.random.default_rng(trial)
        effects = random.normal(size=40).repeat(3) + random.normal(size=120)
        estimate = clustered_mean(
            effects.tolist(), np.arange(40).repeat(3).tolist(), seed=trial, resamples=400
        )
        hits += estimate.low <= 0 <= estimate.high
    assert 265 <= hits <= 297


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        proportion([])
    with pytest.raises(ValueError, match="at least one"):
        clustered_mean([], [])
