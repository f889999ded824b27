"""Tuning: equally many trials for every row, and an optimum at the edge extends the grid."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from fedaigc.study.design.config import Value
from fedaigc.study.design.tuning import Choice, Point, choose, first_points, next_value, on_edge


def played(
    grid: dict[str, list[Value]], loss: Callable[[Point], float], **options: int
) -> tuple[Choice, list[Point]]:
    """Run a tuning to its end, and return its choice and every point in the order of the trials."""
    known: dict[str, float] = {}
    order: list[Point] = []
    settings: dict[str, Any] = {"trials": 4, "extensions": 1} | options
    while True:
        choice = choose(grid, lambda point: known.get(repr(point)), **settings)
        if not choice.waiting:
            return choice, order
        for point in choice.waiting:
            assert repr(point) not in known, "a point is tried once"
            known[repr(point)] = loss(point)
            order.append(point)


def distance(target: float) -> Callable[[Point], float]:
    return lambda point: abs(math.log(float(point["rate"])) - math.log(target))


RATES: list[Value] = [1e-3, 1e-2, 1e-1]


def test_an_optimum_inside_the_grid_needs_no_more() -> None:
    choice, order = played({"rate": RATES}, distance(1e-2))
    assert choice.best == {"rate": 1e-2}
    assert (choice.edges, choice.extended, len(order)) == ((), 0, 3)


def test_an_optimum_on_the_edge_extends_the_grid_by_one_step_at_a_time() -> None:
    """0.1 / 0.01 = 10, so 1.0 is next; then 10, which is worse, so that 1.0 is no longer an edge."""
    choice, order = played({"rate": RATES}, distance(1.0), extensions=3)
    assert [point["rate"] for point in order[3:]] == [1.0, 10.0]
    assert choice.best == {"rate": 1.0}
    assert (choice.edges, choice.extended) == ((), 2)


def test_beyond_the_limit_the_edge_is_told() -> None:
    choice, order = played({"rate": RATES}, distance(1e-9), extensions=1)
    assert choice.best == {"rate": 1e-4}
    assert (choice.edges, choice.extended, len(order)) == (("rate",), 1, 4)
    without, _ = played({"rate": RATES}, distance(1e-9), extensions=0)
    assert (without.best, without.edges) == ({"rate": 1e-3}, ("rate",))


def test_each_key_on_its_edge_is_extended_at_the_others_best() -> None:
    grid: dict[str, list[Value]] = {"rate": [1.0, 2.0], "mu": [1, 2]}
    choice, order = played(grid, lambda point: -float(point["rate"]) - float(point["mu"]))
    assert order[4:] == [{"mu": 4, "rate": 2.0}, {"mu": 2, "rate": 4.0}]
    assert choice.best in order[4:]
    assert choice.extended == 2


def test_values_that_a_strategy_refuses_are_not_tried() -> None:
    known = {repr({"rate": rate}): -float(rate) for rate in (0.25, 0.5)}
    choice = choose(
        {"rate": [0.25, 0.5]},
        lambda point: known.get(repr(point)),
        trials=2,
        extensions=3,
        possible=lambda point: float(point["rate"]) < 1,
    )
    assert (choice.waiting, choice.best, choice.edges) == ((), {"rate": 0.5}, ("rate",))


def test_a_larger_grid_is_drawn_from_and_every_row_gets_as_many_trials() -> None:
    grid: dict[str, list[Value]] = {"rate": RATES, "mu": [0.1, 1.0, 10.0]}
    points = first_points(grid, 4)
    assert len({repr(point) for point in points}) == 4
    assert first_points(grid, 4) == points
    assert first_points({**grid, "mu": [0.1, 1.0, 5.0]}, 4) != points
    assert len(first_points(grid, 9)) == len(first_points(grid, 100)) == 9


def test_a_row_that_diverges_everywhere_ends_its_tuning() -> None:
    choice, order = played({"rate": RATES}, lambda point: math.inf, extensions=3)
    assert len(order) == 3
    assert choice.trials[0][1] == math.inf


def test_one_diverged_point_is_the_worst() -> None:
    choice, _ = played({"rate": RATES}, lambda point: math.inf if point["rate"] == 0.1 else 1.0, extensions=0)
    assert choice.best == {"rate": 1e-3}


@pytest.mark.parametrize(
    ("value", "tried", "expected"),
    [
        (0.01, [0.001, 0.003, 0.01], 0.0333),
        (0.001, [0.001, 0.003, 0.01], 0.000333),
        (8, [2, 4, 8], 16),
        (0.0, [0.0, 0.5], -0.5),
        (1, [1, 3], 0),
    ],
)
def test_the_next_value_by_hand(value: Value, tried: list[Value], expected: float) -> None:
    """0.01 x 0.01 / 0.003 = 0.0333; 0 - 0.5; 1 x 1 / 3 rounds to 0."""
    assert next_value(value, tried) == expected


def test_a_value_of_the_grid_that_was_not_drawn_comes_first() -> None:
    assert next_value(0.01, [0.001, 0.01], [0.001, 0.01, 0.02, 0.5]) == 0.02


def test_words_and_truth_values_have_no_edge() -> None:
    assert not on_edge("a", ["a", "b"])
    assert not on_edge(True, [True, False])
    assert not on_edge(1.0, [1.0])
    assert on_edge(1.0, [1.0, 2.0])
