"""The area under the ROC curve by clusters, compared with a bootstrap that draws the rows themselves."""

import numpy as np
import pytest
from scipy.stats import rankdata

from experiments.sharing.roc import RESAMPLES, clustered_area, clustered_difference
from fedaigc.rng import numpy_rng


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area by ranks: the probability that a positive has the larger score; ties count half."""
    hits = int(positive.sum())
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - hits * (hits + 1) / 2) / (hits * (len(positive) - hits)))


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    # some ties, and one cluster without a positive
    scores, clusters = random.integers(0, 30, 80).astype(float), random.integers(0, 9, 80)
    return scores, (scores + 20 * random.random(80) > 25) & (clusters > 0), clusters


def by_rows(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[float]:
    """Ends of the interval by drawing clusters and all their rows."""
    scores, positive, clusters = sample
    names = sorted(set(clusters.tolist()), key=repr)
    random = numpy_rng(0, "bootstrap")
    found: list[float] = []
    while len(found) < RESAMPLES:
        drawn = [names[i] for i in random.integers(len(names), size=len(names))]
        rows = np.concatenate([np.flatnonzero(clusters == name) for name in drawn])
        if 0 < positive[rows].sum() < len(rows):
            found.append(area(scores[rows], positive[rows]))
    return [float(x) for x in np.percentile(found, [2.5, 97.5])]


def test_area_and_interval_are_those_of_the_drawn_rows(
    sample: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    scores, positive, clusters = sample
    found = clustered_area(scores.tolist(), positive.tolist(), clusters.tolist())
    assert found.mean == pytest.approx(area(scores, positive), abs=1e-4)
    assert [found.low, found.high] == pytest.approx(by_rows(sample), abs=1e-4)
    assert found.low < found.mean < found.high


def test_a_difference_is_paired(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, positive, clusters = (each.tolist() for each in sample)
    other = [-score for score in scores]
    same = clustered_difference(scores, scores, positive, clusters)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    # the area of the reversed order is the rest to one
    reverse = clustered_difference(scores, other, positive, clusters)
    assert reverse.mean == pytest.approx(2 * clustered_area(scores, positive, clusters).mean - 1, abs=2e-4)
