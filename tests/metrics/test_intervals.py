import numpy as np
import pytest

from fedaigc.metrics.intervals import clustered_mean, clustered_share, paired_difference, proportion


def test_wilson_interval_of_8_in_10_by_hand() -> None:
    """z = 1.95996: centre (0.8 + z^2/20) / (1 + z^2/10) = 0.7167, half width 0.2266."""
    estimate = proportion([True] * 8 + [False] * 2)
    assert estimate.mean == 0.8
    assert estimate.low == pytest.approx(0.4902, abs=1e-3)
    assert estimate.high == pytest.approx(0.9433, abs=1e-3)


def test_equal_clusters_widen_the_interval_as_far_as_their_number_says() -> None:
    """Ten copies of each value contain no more information, so the interval remains that of 30 clusters."""
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


def test_where_all_succeed_the_interval_is_wilsons_not_empty() -> None:
    """Wilson's lower end for n of n is n / (n + z^2): 10 / 13.8415 = .7225; and 1 - that for none."""
    clusters = [i % 3 for i in range(10)]
    every = clustered_share([True] * 10, clusters)
    assert every.mean == 1.0
    assert every.high == pytest.approx(1.0)
    assert every.low == pytest.approx(0.7225, abs=1e-4)
    none = clustered_share([False] * 10, clusters)
    assert none.mean == 0.0
    assert none.high == pytest.approx(1 - 0.7225, abs=1e-4)


def test_a_share_of_some_successes_is_the_clustered_mean() -> None:
    outcomes, clusters = [True, True, False, True, False, False], ["a", "a", "b", "c", "c", "b"]
    assert clustered_share(outcomes, clusters) == clustered_mean([1, 1, 0, 1, 0, 0], clusters)


def test_swaps_of_single_pairs_are_mcnemars_exact_test() -> None:
    """20 pairs, 8 right in the first alone and 1 in the second alone: p = 2 (1 + 9) / 2^9 = .0390625."""
    first = [1] * 8 + [0] + [1] * 6 + [0] * 5
    second = [0] * 8 + [1] + [1] * 6 + [0] * 5
    found = paired_difference(first, second, list(range(20)))
    assert found.p == pytest.approx(0.0390625)
    assert found.mean == pytest.approx(7 / 20)
    assert found.low > 0
    swapped = paired_difference(second, first, list(range(20)))
    assert swapped.mean == pytest.approx(-7 / 20)
    assert swapped.p == pytest.approx(found.p)


def test_pairs_of_one_cluster_count_once() -> None:
    """Ten copies of every pair in its cluster add no information."""
    first, second = np.random.default_rng(1).normal(size=(2, 12))
    first += 0.5
    once = paired_difference(first.tolist(), second.tolist(), list(range(12)))
    copied = paired_difference(
        first.repeat(10).tolist(), second.repeat(10).tolist(), np.arange(12).repeat(10).tolist()
    )
    assert (copied.n, copied.clusters) == (120, 12)
    assert copied.p == pytest.approx(once.p)
    assert copied.low == pytest.approx(once.low)
    assert copied.high == pytest.approx(once.high)


def test_without_an_effect_p_is_below_a_twentieth_one_time_in_twenty() -> None:
    """200 trials with an effect per object that is zero on average: 99.9 % of binomial(200, .05) lies in 2 to 21."""
    small = 0
    for trial in range(200):
        random = np.random.default_rng(trial)
        second, own = random.normal(size=10).repeat(5), random.normal(size=10).repeat(5)
        first = second + own + random.normal(size=50)
        found = paired_difference(
            first.tolist(), second.tolist(), np.arange(10).repeat(5).tolist(), resamples=10
        )
        small += found.p < 0.05
    assert 2 <= small <= 21


def test_a_difference_in_one_cluster_alone_shows_nothing() -> None:
    """Swapped signs are equally extreme: p = 1 for any size; for two clusters, 2 of 4 swaps: 1 / 2."""
    assert paired_difference([1, 1, 1, 0], [0, 0, 1, 0], ["a", "a", "b", "c"]).p == 1.0
    assert paired_difference([1, 1, 1, 0], [0, 1, 0, 0], ["a", "a", "b", "c"]).p == pytest.approx(0.5)


def test_runs_that_agree_everywhere_do_not_differ() -> None:
    found = paired_difference([1, 0, 1], [1, 0, 1], ["a", "a", "b"])
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1, 0], [1, 0, 1], ["a", "b"])


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        proportion([])
    with pytest.raises(ValueError, match="at least one"):
        clustered_mean([], [])
