"""Choice of hyper-parameters: equally many trials for every row, and an optimum on the edge extends the grid."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedaigc.rng import numpy_rng
from fedaigc.study.design.config import Value

Point = dict[str, Value]


@dataclass(frozen=True)
class Choice:
    """The state of a row's tuning.

    Attributes:
        waiting: Points whose loss is not known yet. Nothing is chosen while there are any.
        best: The point with the smallest loss.
        trials: All points with their losses, in the order in which they were requested.
        extended: Number of points outside of the first grid.
        edges: Keys whose best value is still on the edge of all values tried. The optimum may lie beyond, and a
            table has to state this.
    """

    waiting: tuple[Point, ...]
    best: Point
    trials: tuple[tuple[Point, float], ...] = ()
    extended: int = 0
    edges: tuple[str, ...] = ()


def choose(
    grid: Mapping[str, Sequence[Value]],
    losses: Callable[[Point], float | None],
    *,
    trials: int,
    extensions: int,
    possible: Callable[[Point], bool] = lambda point: True,
) -> Choice:
    """Tune over `grid` as far as losses are known.

    If the grid has more points than `trials`, that number is drawn, always the same for the same grid. Then, at
    most `extensions` times, every key whose best value is the largest or the smallest one tried gets one more
    value outside, at the best values of the other keys.

    The result depends on `grid` and `losses` alone: a call with more losses continues where the last one stopped.

    Args:
        grid: The values of each key.
        losses: Loss of a point; None if it was not tried yet, infinite if training diverged.
        trials: Number of points to try first.
        extensions: How often the grid may be extended.
        possible: Whether the strategy accepts a point.
    """
    asked = first_points(grid, trials)
    first = len(asked)
    values: dict[str, list[Value]] = {key: list({point[key]: None for point in asked}) for key in grid}
    steps = 0
    while True:
        waiting = tuple(point for point in asked if losses(point) is None)
        if waiting:
            return Choice(waiting, {})
        tried = [(point, loss) for point in asked if (loss := losses(point)) is not None]
        # the first of equal losses, so that the choice does not depend on rounding of a sort
        best, lowest = min(tried, key=lambda entry: entry[1])
        edges = tuple(key for key in sorted(values) if on_edge(best[key], values[key]))
        done = Choice((), best, tuple(tried), len(asked) - first, edges)
        if steps == extensions or not edges or not math.isfinite(lowest):
            return done
        steps += 1
        found = False
        for key in edges:
            beyond = next_value(best[key], values[key], grid[key])
            point = best | {key: beyond}
            if beyond in values[key] or not possible(point):
                continue
            values[key].append(beyond)
            asked.append(point)
            found = True
        if not found:
            return done


def first_points(grid: Mapping[str, Sequence[Value]], trials: int) -> list[Point]:
    """Return all points of the grid or, if there are more than `trials`, that number drawn without repetition."""
    keys = sorted(grid)
    points = [dict(zip(keys, values, strict=True)) for values in itertools.product(*(grid[k] for k in keys))]
    if len(points) <= trials:
        return points
    chosen = numpy_rng(0, "grid", repr(sorted(grid.items()))).choice(len(points), trials, replace=False)
    return [points[i] for i in sorted(chosen)]


def on_edge(value: Value, values: Sequence[Value]) -> bool:
    """Return whether a number is the smallest or the largest of several; False for strings and booleans."""
    numbers = [float(each) for each in values if _is_number(each)]
    return _is_number(value) and len(numbers) > 1 and float(value) in (min(numbers), max(numbers))


def next_value(value: Value, tried: Sequence[Value], grid: Sequence[Value] = ()) -> Value:
    """Return the next number beyond `value`, which is the smallest or the largest of those tried.

    It is the nearest value of `grid` on that side, if any. Otherwise it is as far from `value` as `value` is from
    its neighbour, by ratio if both are above zero and by difference if not, to three significant figures; e.g.
    0.0333 after 0.001, 0.003, 0.01. Integers stay integers.
    """
    numbers = sorted(float(each) for each in tried if _is_number(each))
    edge, upwards = float(value), float(value) == numbers[-1]
    found = [float(each) for each in grid if _is_number(each)]
    outside = [each for each in found if (each > edge if upwards else each < edge)]
    if outside:
        beyond = min(outside, key=lambda each: abs(each - edge))
    else:
        neighbour = numbers[-2] if upwards else numbers[1]
        beyond = edge * edge / neighbour if min(edge, neighbour) > 0 else 2 * edge - neighbour
        beyond = float(f"{beyond:.3g}")
    return round(beyond) if all(isinstance(each, int) for each in tried) else beyond


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
