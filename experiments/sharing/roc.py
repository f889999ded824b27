"""The area under the ROC curve of a distance, with intervals over clusters."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from fedaigc.metrics.intervals import LEVEL, Estimate
from fedaigc.rng import numpy_rng

RESAMPLES = 1000


def area(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the probability that a positive has the larger score; ties count half.

    Raises:
        ValueError: If all or none are positive.
    """
    return _area(np.asarray(scores, float), np.asarray(positive, bool))


def _area(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    hits = int(positive.sum())
    if hits in (0, len(positive)):
        raise ValueError("an area needs positives and negatives")
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - hits * (hits + 1) / 2) / (hits * (len(positive) - hits)))


def clustered_area(
    scores: Sequence[float], positive: Sequence[bool], clusters: Sequence[Hashable]
) -> Estimate:
    """Return the area with a percentile bootstrap interval that resamples whole clusters."""
    values, labels = np.asarray(scores, float), np.asarray(positive, bool)
    return _bootstrapped(lambda rows: _area(values[rows], labels[rows]), labels, clusters)


def clustered_difference(
    one: Sequence[float], two: Sequence[float], positive: Sequence[bool], clusters: Sequence[Hashable]
) -> Estimate:
    """Return the area of `one` minus that of `two`, paired, with the interval of `clustered_area`."""
    a, b, labels = np.asarray(one, float), np.asarray(two, float), np.asarray(positive, bool)
    return _bootstrapped(
        lambda rows: _area(a[rows], labels[rows]) - _area(b[rows], labels[rows]), labels, clusters
    )


def _bootstrapped(
    statistic: Callable[[Int[np.ndarray, " m"]], float],
    positive: Bool[np.ndarray, " n"],
    clusters: Sequence[Hashable],
) -> Estimate:
    names = sorted(set(clusters), key=repr)
    members = [np.flatnonzero([cluster == name for cluster in clusters]) for name in names]
    random = numpy_rng(0, "bootstrap")
    found: list[float] = []
    while len(found) < RESAMPLES:
        rows = np.concatenate([members[i] for i in random.integers(len(names), size=len(names))])
        if 0 < positive[rows].sum() < len(rows):
            found.append(statistic(rows))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    everything = np.arange(len(positive))
    return Estimate(
        round(statistic(everything), 4), round(float(low), 4), round(float(high), 4), len(positive)
    )
