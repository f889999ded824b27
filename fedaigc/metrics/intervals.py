"""95 % intervals for proportions and for means over clusters."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fedaigc.rng import numpy_rng

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, from n observations."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float]:
        """For JSON records."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def proportion(outcomes: Sequence[bool]) -> Estimate:
    """The share of true outcomes with Wilson's score interval, for independent outcomes.

    Do not use it where several outcomes share a prompt pair or a client: see `clustered_mean`.
    Raises ValueError for no outcomes.
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
    """The mean of `values` with a percentile bootstrap that draws whole clusters (prompt pairs, clients).

    Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
    Raises ValueError for no values, or when the lengths differ.
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
