"""Bulyan's selection: Krum's choice, repeated among the remaining updates."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.strategy.flower.iterated_krum import iterated_krum
from fedaigc.strategy.registry import load_strategy


def contents(points: np.ndarray) -> list[RecordDict]:
    return [RecordDict({"arrays": ArrayRecord({"x": Array(point)})}) for point in points]


def chosen(points: np.ndarray, rule: Callable[..., list[RecordDict]], f: int, count: int) -> list[int]:
    given_contents = contents(points)
    selected = rule(given_contents, f, count)
    return [next(i for i, each in enumerate(given_contents) if each is one) for one in selected]


def slow_krum(points: np.ndarray, f: int) -> int:
    """Krum by its definition: the smallest sum of squared distances to the m - f - 2 nearest others."""
    scores = []
    for i, point in enumerate(points):
        others = sorted(float(((point - other) ** 2).sum()) for j, other in enumerate(points) if j != i)
        scores.append(sum(others[: max(1, len(points) - f - 2)]))
    return int(np.argmin(scores))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**20), f=st.integers(0, 2))
def test_it_is_krum_again_and_again(seed: int, f: int) -> None:
    """By definition, as long as a score counts two neighbours; with one, mutual neighbours tie."""
    points = np.random.default_rng(seed).normal(size=(4 * f + 5, 6))
    count = len(points) - 2 * f
    left = list(range(len(points)))
    expected: list[int] = []
    while len(expected) < count and len(left) - f - 2 > 1:
        best = left[slow_krum(points[left], f)]
        expected.append(best)
        left.remove(best)
    found = chosen(points, iterated_krum, f, count)
    assert expected
    assert found[: len(expected)] == expected
    assert len(set(found)) == count


def test_one_pass_and_repeated_selection_differ() -> None:
    """By hand, on a line, f = 1, n = 7: five of 0, 1, 3, 4, 8, 13, 20 are selected.

    One pass, 4 nearest each: 0: 1+9+16+64=90; 1: 1+4+9+49=63; 3: 1+4+9+25=39; 4: 1+9+16+16=42 and so on: the
    five lowest scores. Repeated: 3 leaves, then the sums are of 3 nearest among 0, 1, 4, 8, 13, 20, ...
    """
    points = np.array([[0.0], [1.0], [3.0], [4.0], [8.0], [13.0], [20.0]])
    assert chosen(points, select_multikrum, 1, 5) == [2, 3, 1, 0, 4]
    # of 0, 1, 4, 8, 13, 20 with three neighbours: 0: 1+16+64, 1: 1+9+49, 4: 9+16+16, 8: 16+25+49: 4 leaves;
    # of 0, 1, 8, 13, 20 with two: 0: 1+64, 1: 1+49, 8: 25+49, 13: 25+49: 1 leaves;
    # of 0, 8, 13, 20 with one: 0: 64, 8: 25, 13: 25, 20: 49: 8 leaves, the first; of 0, 13, 20: 13
    assert chosen(points, iterated_krum, 1, 5) == [2, 3, 1, 4, 5]


def test_the_option_chooses_and_is_a_truth_value() -> None:
    plain: Any = load_strategy("bulyan")
    one_pass: Any = load_strategy("bulyan", {"iterated": False})
    assert plain._strategy.selection_rule is iterated_krum
    assert one_pass._strategy.selection_rule is select_multikrum
    with pytest.raises(UserError, match="iterated is true or false, got 1"):
        load_strategy("bulyan", {"iterated": 1})
