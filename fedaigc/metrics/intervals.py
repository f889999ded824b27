"""95 % intervals of proportions, of means over clusters, and of paired differences."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fedaigc.rng import numpy_rng

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, from n observations.

    Attributes:
        mean: The mean.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of observations.
    """

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """Return the fields, for JSON records."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def proportion(outcomes: Sequence[bool]) -> Estimate:
    """Return the share of true outcomes with Wilson's score interval, for independent outcomes.

    Do not use this if several outcomes share an object, a prompt pair or a client: see `clustered_share`.

    Raises:
        ValueError: If there are no outcomes.
    """
    if not outcomes:
        raise ValueError("a proportion needs at least one outcome")
    from scipy.stats import binomtest

    hits = sum(bool(outcome) for outcome in outcomes)
    interval = binomtest(hits, len(outcomes)).proportion_ci(LEVEL, method="wilson")
    return Estimate(hits / len(outcomes), float(interval.low), float(interval.high), len(outcomes))


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0, resamples: int = 2000
) -> Estimate:
    """Return the mean of `values` with a percentile bootstrap interval that resamples whole clusters.

    Args:
        values: The observations.
        clusters: The cluster of each observation, e.g. its prompt pair or client.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap samples.

    Raises:
        ValueError: If there are no values, or if the lengths differ.

    References:
        Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(
            f"expected as many clusters as values and at least one, got {len(values)} and {len(clusters)}"
        )
    names = sorted(set(clusters), key=repr)
    index = {name: i for i, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, cluster in zip(values, clusters, strict=True):
        sums[index[cluster]] += value
        counts[index[cluster]] += 1
    drawn = numpy_rng(seed, "bootstrap").integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(float(np.mean(values)), float(low), float(high), len(values))


def clustered_share(
    outcomes: Sequence[bool], clusters: Sequence[Hashable], *, seed: int = 0, resamples: int = 2000
) -> Estimate:
    """Return the share of true outcomes with the interval of `clustered_mean`.

    If all or none of the outcomes are true, the interval is Wilson's, because resampling equal outcomes gives
    an interval without width. Wilson's interval assumes independent outcomes. If nothing varies, nothing
    shows how similar the outcomes of one cluster are, so the interval may be too narrow.

    Args:
        outcomes: The outcomes.
        clusters: The cluster of each outcome.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap samples.

    Raises:
        ValueError: If there are no outcomes, or if the lengths differ.
    """
    values = [float(bool(outcome)) for outcome in outcomes]
    estimate = clustered_mean(values, clusters, seed=seed, resamples=resamples)
    return proportion(outcomes) if len(set(values)) == 1 else estimate


@dataclass(frozen=True)
class Difference:
    """A mean difference of pairs with its 95 % interval.

    Attributes:
        mean: Mean of first - second.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of pairs.
        clusters: Number of clusters that the pairs form.
        p: Two-sided p value.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int
    p: float

    def as_dict(self) -> dict[str, float]:
        """Return the fields, for JSON records."""
        return asdict(self)


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Difference:
    """Return the mean of first - second over pairs of values that share everything but the factor compared.

    The interval is that of `clustered_mean`. p is the share of random swaps of first and second, of all pairs
    of a cluster at once, with a difference at least as far from zero. It comes from
    `scipy.stats.permutation_test` with 9,999 swaps, so it is never below .0002. With clusters of one pair and
    outcomes of 0 and 1, the test is McNemar's exact test. If no pair differs, the interval has no width and p
    is 1.

    Args:
        first: The first value of each pair.
        second: The second value of each pair.
        clusters: The cluster of each pair.
        seed: Seed of the bootstrap and of the swaps.
        resamples: Number of bootstrap samples.

    Raises:
        ValueError: If there are no values, or if the lengths differ.
    """
    from scipy.stats import permutation_test

    if len(first) != len(second):
        raise ValueError(f"expected pairs, got {len(first)} and {len(second)} values")
    differences = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    estimate = clustered_mean(differences, clusters, seed=seed, resamples=resamples)
    sums: dict[Hashable, float] = {}
    for difference, cluster in zip(differences, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + difference
    # swaps do not change a cluster without a difference, or the distance of a single cluster from zero
    told = np.array([value for value in sums.values() if value])
    p = 1.0
    if len(told) > 1:
        random = numpy_rng(seed, "swaps")
        swapped = permutation_test(
            (told,), np.sum, permutation_type="samples", vectorized=True, n_resamples=9999, rng=random
        )
        p = min(1.0, float(swapped.pvalue))
    return Difference(estimate.mean, estimate.low, estimate.high, estimate.n, len(sums), p)
