"""Paired statistics of strategies over seeds and clients.

Seeds pair: under one seed every strategy has the same data, initial weights and draws of clients. The
difference to the reference under that seed is one observation, and what the strategies share cancels.

There are two intervals of the same mean difference. The t interval is over seeds, with one value each: report
this one. The bootstrap draws seeds and clients, so it also makes a statement about other clients. With the
five to ten seeds of a usual table, however, its percentiles are too narrow by about sqrt(1 - 1/n) and by the
tails of t: read it in addition to the t interval, not in its place.

Both the t interval and the test assume that seeds are independent and differences about normal; five seeds
cannot show that they are not. A p value above 0.05 is no evidence that two strategies are equal: give the
interval.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedaigc.counting import counted
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import LEVEL, Estimate
from fedaigc.rng import numpy_rng

GATE_SDS = 10.0  # the gain of pooled training over the base that a comparison of strategies needs
WORST_SHARE = 0.1


@dataclass(frozen=True)
class Score:
    """The score of one client under one strategy and one seed.

    Attributes:
        strategy: Name of the strategy.
        seed: Seed of the run.
        client: Name of the client.
        value: The score, e.g. a loss.
    """

    strategy: str
    seed: int
    client: str
    value: float


@dataclass(frozen=True)
class Comparison:
    """A strategy against the reference, as strategy minus reference: for a loss, below zero is better.

    Attributes:
        strategy: Name of the strategy.
        reference: Name of the reference.
        over_seeds: Mean and 95 % t interval over seeds of the mean over clients; n is the number of seeds.
        over_clients: The same mean with the bootstrap over seeds and clients; n is the number of pairs.
        p_value: The p of the paired t test.
        p_holm: The same, corrected for all strategies that are compared with the reference.
    """

    strategy: str
    reference: str
    over_seeds: Estimate
    over_clients: Estimate
    p_value: float
    p_holm: float


def compare(
    scores: Sequence[Score],
    reference: str,
    *,
    hypotheses: int | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> list[Comparison]:
    """Compare every other strategy with `reference`, by name.

    Clients count equally, regardless of their number of images.

    Args:
        scores: The scores of all strategies.
        reference: Name of the reference.
        hypotheses: The number of comparisons that p is corrected for, if these are a selection of more: see
            `holm`.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: A strategy lacks a (seed, client) that another one has, or has one twice; the reference is not
            among the strategies; or there are fewer than two seeds.
    """
    cells = _cells(scores)
    if reference not in cells:
        raise UserError(
            f"the reference {reference!r} has no scores: expected one of {', '.join(sorted(cells))}"
        )
    base = cells[reference]
    differences: dict[str, dict[tuple[int, str], float]] = {}
    for strategy in sorted(cells.keys() - {reference}):
        if cells[strategy].keys() != base.keys():
            run_seed, client = min(cells[strategy].keys() ^ base.keys())
            raise UserError(
                f"{strategy!r} and {reference!r} were not scored on the same clients: only one of them has "
                f"seed {run_seed}, client {client!r}; run what is missing, or omit this seed"
            )
        differences[strategy] = {key: cells[strategy][key] - base[key] for key in sorted(base)}
    means = {strategy: list(seed_means(cell).values()) for strategy, cell in differences.items()}
    p_values = {strategy: paired_t_test(values) for strategy, values in means.items()}
    p_holm = holm(p_values, hypotheses)
    return [
        Comparison(
            strategy,
            reference,
            t_interval(means[strategy]),
            two_way_bootstrap(differences[strategy], seed=seed, resamples=resamples),
            p_values[strategy],
            p_holm[strategy],
        )
        for strategy in differences
    ]


def seed_means(values: Mapping[tuple[int, str], float]) -> dict[int, float]:
    """Return the mean over clients under each seed, from values by (seed, client), sorted by seed."""
    by_seed: dict[int, list[float]] = defaultdict(list)
    for (seed, _), value in values.items():
        by_seed[seed].append(value)
    return {seed: float(np.mean(by_seed[seed])) for seed in sorted(by_seed)}


def t_interval(values: Sequence[float]) -> Estimate:
    """Return the mean and its t interval:

        mean +- t(0.975, n - 1) s / sqrt(n),   s with n - 1 in the denominator

    The values must be independent, so there is one per seed.

    Raises:
        UserError: There are fewer than two values.
    """
    n, mean, sd = _moments(values)
    if sd == 0:
        return Estimate(mean, mean, mean, n)
    from scipy.stats import ttest_1samp

    ends = ttest_1samp(values, 0).confidence_interval(LEVEL)
    return Estimate(mean, float(ends.low), float(ends.high), n)


def paired_t_test(differences: Sequence[float]) -> float:
    """Return the two-sided p of "the mean difference is zero", with n - 1 degrees of freedom:

        t = |mean| / (s / sqrt(n))

    If all differences are equal, s is 0: p is then 1 if they are zero, as for two names of one rule, otherwise 0.

    Raises:
        UserError: There are fewer than two differences.
    """
    _, mean, sd = _moments(differences)
    if sd == 0:
        return 1.0 if mean == 0 else 0.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0).pvalue)


def holm(p_values: Mapping[str, float], hypotheses: int | None = None) -> dict[str, float]:
    """Apply Holm's step-down correction, with p sorted in ascending order:

        p_i' = max over j <= i of min(1, (m - j + 1) p_j)

    It bounds the probability of any false claim among the m by alpha, regardless of the dependence between tests.

    Worked: p = 0.005, 0.01, 0.03, 0.04 and m = 4 give

        4 x 0.005 = 0.02,   3 x 0.01 = 0.03,   2 x 0.03 = 0.06,   1 x 0.04 = 0.04

    and the last rises to 0.06, since a larger p cannot end below a smaller one. At 0.05 two claims stand.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6(2), 1979.

    Args:
        p_values: The p of each test, by name.
        hypotheses: m, by default the number of p values. It is larger if only the best of m were tested again:
            the others then rank behind these with a p of 1.

    Raises:
        ValueError: A p lies outside of [0, 1], or there are fewer hypotheses than p values.
    """
    count = len(p_values) if hypotheses is None else hypotheses
    if count < len(p_values):
        raise ValueError(f"{len(p_values)} p values of only {count} hypotheses")
    wrong = [p for p in p_values.values() if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"expected p values from 0 to 1, got {wrong[0]}")
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (count - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def two_way_bootstrap(
    values: Mapping[tuple[int, str], float], *, seed: int = 0, resamples: int = 2000
) -> Estimate:
    """Return the mean of values by (seed, client) with a percentile interval that draws whole seeds and whole clients.

    The factors are crossed: client "3" is the same client under every seed. The weight of a cell in a resample is

        (times its seed was drawn) x (times its client was drawn)

    The interval errs on the wide side if neither factor matters. If every seed has clients of its own, use
    `metrics.intervals.clustered_mean` with the seeds as clusters.

    Source: A. Owen, "The Pigeonhole Bootstrap", Annals of Applied Statistics 1(2), 2007, arXiv:0712.1111.

    Args:
        values: The values by (seed, client).
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Raises:
        UserError: There are fewer than two seeds, or seeds have different clients.
    """
    seeds = sorted({key[0] for key in values})
    clients = sorted({key[1] for key in values})
    if len(seeds) < 2:
        raise UserError(f"{counted(len(seeds), 'seed')}: an interval over seeds needs at least two")
    missing = [(s, c) for s in seeds for c in clients if (s, c) not in values]
    if missing:
        raise UserError(
            f"seed {missing[0][0]} has no value of client {missing[0][1]!r}, which other seeds have: "
            "give every seed the same clients"
        )
    grid = np.array([[values[s, c] for c in clients] for s in seeds])
    random = numpy_rng(seed, "two-way bootstrap")
    times_seed = random.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=resamples)
    times_client = random.multinomial(len(clients), np.full(len(clients), 1 / len(clients)), size=resamples)
    means = np.einsum("rs,sc,rc->r", times_seed, grid, times_client) / grid.size
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(float(grid.mean()), float(low), float(high), grid.size)


def worst_tenth_mean(values: Sequence[float], *, higher_is_worse: bool = True) -> float:
    """Return the mean over the worst ceil(n / 10) clients: of 8 the worst one, of 25 the worst three.

    Raises:
        UserError: There are no clients.
    """
    if not values:
        raise UserError("no clients: the worst tenth needs at least one")
    ranked = sorted(values, reverse=higher_is_worse)
    # an integer ceiling: 0.1 x 30 is a little more than 3 in floating point
    return float(np.mean(ranked[: -(-len(ranked) // round(1 / WORST_SHARE))]))


def margin_in_sds(base: Mapping[int, float], pooled: Mapping[int, float]) -> float:
    """Return by how many standard deviations over seeds pooled training beats the base:

        mean(d) / sd(d),   d = base loss - pooled loss under each seed, sd with n - 1 in the denominator

    The gate before any comparison is `GATE_SDS`. The margin is relative to a spread over seeds, not to a standard
    error: more seeds do not raise it.

    Raises:
        UserError: The seeds differ, there are fewer than two, or all differences are equal, which means that the
            seed was not used.
    """
    if base.keys() != pooled.keys():
        odd = min(base.keys() ^ pooled.keys())
        raise UserError(f"only one of base and pooled has seed {odd}: run both with the same seeds")
    n, mean, sd = _moments([base[seed] - pooled[seed] for seed in sorted(base)])
    if sd == 0:
        raise UserError(f"all {n} seeds differ by exactly {mean}: was the same run repeated?")
    return mean / sd


def _moments(values: Sequence[float]) -> tuple[int, float, float]:
    if len(values) < 2:
        raise UserError(
            f"{counted(len(values), 'seed')}: a spread over seeds needs at least two, and preferably five or more"
        )
    if not np.isfinite(values).all():
        raise UserError(f"values over seeds are not all finite: {list(values)}; check the run that diverged")
    # numpy's deviation of equal numbers can be 1e-17 instead of 0
    sd = 0.0 if len(set(values)) == 1 else float(np.std(values, ddof=1))
    return len(values), float(np.mean(values)), sd


def _cells(scores: Sequence[Score]) -> dict[str, dict[tuple[int, str], float]]:
    keys: Counter[Hashable] = Counter((score.strategy, score.seed, score.client) for score in scores)
    twice = [key for key, count in keys.items() if count > 1]
    if twice:
        raise UserError(f"two scores of (strategy, seed, client) {twice[0]}: give one of each")
    cells: dict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for score in scores:
        cells[score.strategy][score.seed, score.client] = score.value
    return dict(cells)
