"""The area under the ROC curve of a distance, with intervals over clusters."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from fedaigc.metrics.intervals import LEVEL, Estimate
from fedaigc.rng import numpy_rng

RESAMPLES = 1000


def clustered_area(
    scores: Sequence[float], positive: Sequence[bool], clusters: Sequence[Hashable]
) -> Estimate:
    """Return the area with a percentile bootstrap interval that resamples whole clusters.

    The area is the probability that a positive has the larger score; ties count half. Resamples without a positive or
    without a negative are drawn again.
    """
    return _bootstrapped([scores], positive, clusters)


def clustered_difference(
    one: Sequence[float], two: Sequence[float], positive: Sequence[bool], clusters: Sequence[Hashable]
) -> Estimate:
    """Return the area of `one` minus that of `two`, paired, with the interval of `clustered_area`."""
    return _bootstrapped([one, two], positive, clusters)


def _bootstrapped(
    scores: Sequence[Sequence[float]], positive: Sequence[bool], clusters: Sequence[Hashable]
) -> Estimate:
    """Return the area of the first scores, minus that of the second if there are any."""
    labels = np.asarray(positive, bool)
    names = sorted(set(clusters), key=repr)
    at = np.array([names.index(cluster) for cluster in clusters])
    hits, misses = (np.bincount(at[labels == value], minlength=len(names)) for value in (True, False))
    won = [_won(np.asarray(each, float), labels, at, len(names)) for each in scores]
    if len(won) > 1:
        won = [won[0] - won[1]]

    def statistic(times: Int[np.ndarray, " clusters"]) -> float:
        return float(times @ won[0] @ times / ((times @ hits) * (times @ misses)))

    random = numpy_rng(0, "bootstrap")
    found: list[float] = []
    while len(found) < RESAMPLES:
        times = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        if times @ hits and times @ misses:
            found.append(statistic(times))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    once = statistic(np.ones(len(names), int))
    return Estimate(round(once, 4), round(float(low), 4), round(float(high), 4), len(labels))


def _won(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], at: Int[np.ndarray, " n"], count: int
) -> Float[np.ndarray, "clusters clusters"]:
    """Return, for two clusters, how many pairs of a positive of one and a negative of the other the former wins.

    A cluster that is drawn twice counts as two, so the area of any resample follows from this matrix.
    """
    mine, theirs = scores[positive][:, None], scores[~positive][None, :]
    wins = (mine > theirs) + 0.5 * (mine == theirs)
    found = np.zeros((count, count))
    np.add.at(found, (at[positive][:, None], at[~positive][None, :]), wins)
    return found
