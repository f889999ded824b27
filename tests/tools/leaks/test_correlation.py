"""The search for private tensors by correlation."""

import numpy as np
import pytest

from tools.leaks.correlation import Sequence, Template, correlated


def directly(template: np.ndarray, values: np.ndarray) -> float:
    """Return the largest absolute correlation of differences over all positions, one by one."""
    wanted, given = np.diff(template), np.diff(values)
    windows = np.lib.stride_tricks.sliding_window_view(given, len(wanted))
    return max(abs(np.corrcoef(wanted, window)[0, 1]) for window in windows if window.std() > 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_correlation_is_that_of_all_places(seed: int) -> None:
    random = np.random.default_rng(seed)
    template, values = random.normal(size=40), random.normal(size=400)
    values[100:140] += 0.5 * template
    found = Template("x", template).largest_correlation(Sequence(values))
    assert found == pytest.approx(directly(template, values), abs=1e-9)


def test_a_tensor_is_found_whatever_its_scale_beside_large_numbers() -> None:
    random = np.random.default_rng(0)
    template = random.normal(size=256)
    values = np.concatenate([[900.0, -900.0], np.zeros(50), template / 50, [900.0]])
    assert Template("x", template).largest_correlation(Sequence(values)) == pytest.approx(1.0)


def test_rounding_beside_large_numbers_finds_nothing() -> None:
    """Page numbers of a database, read as halves: differences of 1e-4 after some of 1e3, which sums round off."""
    random = np.random.default_rng(1)
    values = np.zeros(16384)
    values[:50] = random.normal(size=50) * 1e3
    values[50:610:2] = np.arange(280) * 3e-7
    sequence = Sequence(values)
    templates = [Template("x", np.random.default_rng(seed).normal(size=256)) for seed in range(100, 120)]
    assert max(template.largest_correlation(sequence) for template in templates) < 0.5


@pytest.mark.parametrize("count", [0, 1, 40])
def test_too_few_numbers_and_no_templates_find_nothing(count: int) -> None:
    """The values themselves, without one of them, have one difference too few."""
    values = np.random.default_rng(2).normal(size=count)
    assert list(correlated([], values)) == []
    longer = Template("x", np.random.default_rng(2).normal(size=41))
    assert list(correlated([longer], values)) == []
    if count == 40:
        assert list(correlated([Template("x", values)], values)) == [("x", "correlation 1.00")]
