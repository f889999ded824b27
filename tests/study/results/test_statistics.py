import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.study.results.statistics import (
    Score,
    compare,
    holm,
    margin_in_sds,
    paired_t_test,
    seed_means,
    t_interval,
    two_way_bootstrap,
    worst_tenth_mean,
)

P_VALUES = st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8)
VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


def test_t_interval_of_1_to_5_by_hand() -> None:
    """Mean 3, s^2 = (4 + 1 + 0 + 1 + 4) / 4 = 2.5, s / sqrt(5) = 0.70711; t(0.975, 4) = 2.776 in tables."""
    estimate = t_interval([1, 2, 3, 4, 5])
    assert (estimate.mean, estimate.n) == (3, 5)
    assert estimate.high - 3 == pytest.approx(2.776 * 0.70711, abs=1e-3)
    assert 3 - estimate.low == pytest.approx(estimate.high - 3)


def test_t_interval_of_two_values_uses_the_tangent() -> None:
    """With one degree of freedom t is Cauchy: t(0.975, 1) = tan(0.475 pi) = 12.706; s / sqrt(2) = 1."""
    assert t_interval([0, 2]).high == pytest.approx(1 + math.tan(0.475 * math.pi))


def test_paired_t_test_of_1_2_3_by_hand() -> None:
    """t = 2 / (1 / sqrt(3)) = 3.4641; with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2) = 0.07418."""
    assert paired_t_test([1, 2, 3]) == pytest.approx(1 - math.sqrt(12 / 14))


@given(VALUES)
def test_interval_and_test_follow_their_formulas_and_agree_with_each_other(values: list[float]) -> None:
    from scipy.stats import t

    interval, p = t_interval(values), paired_t_test(values)
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
    if np.std(values) > 1e-6:
        assert p == pytest.approx(2 * t.sf(abs(mean) / error, len(values) - 1), rel=1e-6, abs=1e-12)
        half = t.ppf(0.975, len(values) - 1) * error
        assert (interval.low, interval.high) == pytest.approx((mean - half, mean + half), rel=1e-6, abs=1e-9)
        if abs(p - 0.05) > 1e-6:
            assert (p < 0.05) == (not interval.low <= 0 <= interval.high)
    assert paired_t_test([-value for value in values]) == pytest.approx(p)


def test_differences_that_are_all_equal() -> None:
    """Two names of one rule differ by exactly zero, which is no evidence."""
    assert paired_t_test([0.0, 0.0, 0.0]) == 1
    assert paired_t_test([0.1, 0.1, 0.1]) == 0
    assert t_interval([0.1, 0.1, 0.1]).low == t_interval([0.1, 0.1, 0.1]).high


def test_holm_by_hand() -> None:
    """The example of the docstring: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04 lifted to 0.06."""
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(corrected) == list("abcd"), "in the order given"
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1, "b": 1}
    assert holm({}) == {}
    assert holm({"d": 0.005, "a": 0.01}, 4) == pytest.approx({"d": 0.02, "a": 0.03}), "the best two of four"
    with pytest.raises(ValueError, match="2 p values of only 1"):
        holm({"a": 0.01, "b": 0.04}, 1)
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm({"a": math.nan})


@given(P_VALUES)
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p: dict[str, float]) -> None:
    corrected = holm(p)
    for name, value in p.items():
        assert value <= corrected[name] <= min(1, len(p) * value)
    ranked = sorted(p, key=lambda name: p[name])
    assert [corrected[name] for name in ranked] == sorted(corrected.values())


def test_holm_makes_a_false_claim_in_at_most_5_of_100_tables() -> None:
    """2,000 tables of 6 true nulls: 4 standard errors above 100 is 139; without it 530 are expected."""
    random = np.random.default_rng(0)
    tables = [{str(i): float(p) for i, p in enumerate(random.uniform(size=6))} for _ in range(2000)]
    assert sum(min(holm(table).values()) <= 0.05 for table in tables) < 139
    assert sum(min(table.values()) <= 0.05 for table in tables) > 400


def scores(table: dict[str, list[list[float]]]) -> list[Score]:
    """Rows are seeds, columns are clients."""
    return [
        Score(strategy, seed, f"client {client}", value)
        for strategy, rows in table.items()
        for seed, row in enumerate(rows)
        for client, value in enumerate(row)
    ]


def test_a_comparison_by_hand() -> None:
    """Two seeds, two clients. Minus fedavg, flora has (-1, -1) and (-3, -3): -1 and -3 over the seeds.

    Mean -2, s = sqrt(2), s / sqrt(2) = 1: the interval is -2 +- 12.706, t = 2 with one degree of freedom, and
    p = 1 - 2 atan(2) / pi = 0.29517. "same" has p = 1. Holm for two: 0.59033 and 1.
    """
    fedavg = [[5.0, 6.0], [7.0, 9.0]]
    same, flora = compare(
        scores({"flora": [[4.0, 5.0], [4.0, 6.0]], "fedavg": fedavg, "same": fedavg}), "fedavg"
    )[::-1]
    assert (flora.strategy, same.strategy, flora.reference) == ("flora", "same", "fedavg")
    assert (flora.over_seeds.mean, flora.over_seeds.n) == (-2, 2)
    assert flora.over_seeds.low == pytest.approx(-2 - 12.7062, abs=1e-4)
    assert flora.p_value == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert flora.p_holm == pytest.approx(2 * flora.p_value)
    assert (same.p_value, same.p_holm, same.over_seeds.high) == (1, 1, 0)
    (best,) = compare(scores({"flora": [[4.0, 5.0], [4.0, 6.0]], "fedavg": fedavg}), "fedavg", hypotheses=3)
    assert best.p_holm == pytest.approx(3 * flora.p_value), "the pick of three is corrected for three"
    # a draw of the seeds is (0, 0), (0, 1), (1, 0) or (1, 1), a quarter each: means -1, -2, -2, -3
    assert (flora.over_clients.low, flora.over_clients.high, flora.over_clients.n) == (-3, -1, 4)


def test_neither_the_order_of_scores_nor_a_shared_shift_matters() -> None:
    random = np.random.default_rng(1)
    first = random.normal(size=(5, 4))
    table = {"a": first.tolist(), "b": (first + random.normal(size=(5, 4))).tolist()}
    (plain,) = compare(scores(table), "a")
    (reversed_,) = compare(scores(table)[::-1], "a")
    assert reversed_ == plain
    shift = random.normal(size=(5, 1)) * 100
    shifted = {name: (np.array(rows) + shift).tolist() for name, rows in table.items()}
    (moved,) = compare(scores(shifted), "a")
    assert moved.over_seeds.mean == pytest.approx(plain.over_seeds.mean)
    assert moved.p_value == pytest.approx(plain.p_value)


def test_incomplete_comparisons_are_refused() -> None:
    full = scores({"a": [[1.0, 2.0], [3.0, 4.0]], "b": [[1.0, 2.0], [3.0, 5.0]]})
    for given_scores, reference, words in (
        (full, "c", "the reference 'c' has no scores: expected one of a, b"),
        (full[:-1], "a", "only one of them has seed 1, client 'client 1'"),
        ([*full, full[0]], "a", "two scores"),
        ([score for score in full if score.seed == 0], "a", "at least two"),
        ([*full[:-1], Score("b", 1, "client 1", math.nan)], "a", "not all finite"),
    ):
        with pytest.raises(UserError, match=words):
            compare(given_scores, reference)


def test_two_way_bootstrap_covers_the_truth() -> None:
    """15 seeds and 15 clients, both random, 200 trials: nominal 190, 4 standard deviations below is 177."""
    hits = 0
    for trial in range(200):
        random = np.random.default_rng(trial)
        grid = random.normal(size=(15, 1)) + random.normal(size=(1, 15)) + random.normal(size=(15, 15))
        cells = {(s, str(c)): float(grid[s, c]) for s in range(15) for c in range(15)}
        estimate = two_way_bootstrap(cells, seed=trial, resamples=400)
        assert estimate.mean == pytest.approx(grid.mean())
        hits += estimate.low <= 0 <= estimate.high
    assert hits >= 177


def test_clients_that_differ_widen_the_interval_though_seeds_agree() -> None:
    """Ten copies of the same seed do not reduce the uncertainty over clients."""
    effects = np.random.default_rng(0).normal(size=8)
    cells = {(s, str(c)): float(effects[c]) for s in range(10) for c in range(8)}
    estimate = two_way_bootstrap(cells)
    assert estimate.high - estimate.low > 2 * 1.96 * effects.std() / math.sqrt(8) * 0.8
    assert t_interval(list(seed_means(cells).values())).high == pytest.approx(effects.mean())
    with pytest.raises(UserError, match="seed 3 has no value of client '5'"):
        two_way_bootstrap({key: value for key, value in cells.items() if key != (3, "5")})


def test_worst_tenth_by_hand() -> None:
    """The worst one of 8 clients; the worst three of 25, (25 + 24 + 23) / 3; exactly three of 30."""
    assert worst_tenth_mean([1, 9, 2, 3, 4, 5, 6, 7]) == 9
    assert worst_tenth_mean([1, 9, 2, 3, 4, 5, 6, 7], higher_is_worse=False) == 1
    assert worst_tenth_mean(list(range(1, 26))) == 24
    assert worst_tenth_mean(list(range(1, 31))) == 29
    with pytest.raises(UserError, match="no clients"):
        worst_tenth_mean([])


def test_margin_of_the_gate_by_hand() -> None:
    """d = 1, 2, 3: mean 2, sd 1. The base is the same under every seed."""
    assert margin_in_sds({0: 5.0, 1: 5.0, 2: 5.0}, {0: 4.0, 1: 3.0, 2: 2.0}) == pytest.approx(2)
    assert margin_in_sds({0: 1.0, 1: 1.0}, {0: 2.0, 1: 4.0}) < 0
    with pytest.raises(UserError, match="seed 2"):
        margin_in_sds({0: 5.0, 1: 5.0, 2: 5.0}, {0: 4.0, 1: 3.0})
    with pytest.raises(UserError, match="same run repeated"):
        margin_in_sds({0: 5.0, 1: 5.0}, {0: 4.0, 1: 4.0})
