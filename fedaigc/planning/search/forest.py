r"""A forest over points whose blocks can be merged, with damages kept up to date.

A point stands for equal tasks. At every rung the points are divided into blocks, and blocks of a rung lie within
blocks of the rung before. With c_m the number of tasks of point m, C that of a block, and e the Euclidean distance,

    e(p, mean of the block)^2 = Q_p / C - S / (2 C^2),    Q_p = sum_m c_m e(p, m)^2,    S = sum_p c_p Q_p

so that a merge needs distances of points alone, and costs as much as both blocks have points.
"""

from collections.abc import Iterable, Sequence
from math import sqrt
from operator import add, mul
from typing import NamedTuple

import numpy as np

from fedaigc.planning.setting import Setting

_GRID = 16384
_INFINITE = float("inf")


class Block(NamedTuple):
    """Points that are together at a rung; never changed once it is made.

    Attributes:
        points: Its points.
        tasks: C, the number of their tasks.
        own: Cost of a step, if each task's own device runs it.
        sums: Q of each point.
        total: S.
        added: What the rung adds to the damage of each point.
        cost: Cost of the rung.
        shared: Whether the tasks share the rung's steps.
    """

    points: tuple[int, ...]
    tasks: int
    own: float
    sums: tuple[float, ...]
    total: float
    added: tuple[float, ...]
    cost: float
    shared: bool


Together = tuple[list[float], list[float], float]
"""What a rung adds to each point of two blocks as one, with Q of each point and S."""


class Merge(NamedTuple):
    """A merge that is possible: of the blocks of two points, at all rungs up to `rung`.

    Attributes:
        gain: What it saves.
        extra: What it adds to the damages of all tasks together.
    """

    gain: float
    extra: float
    rung: int


class Tables:
    """What every forest of a setting reads: damage of each rung by distance, and costs.

    The damage is looked up on a grid: the largest value of the cell that a distance lies in, so that it is never below
    the curve.
    """

    def __init__(self, setting: Setting) -> None:
        curve, weights = setting.curve, setting.weights
        edges = np.linspace(0, curve.knots[-1], _GRID + 1)
        self.scale = _GRID / float(curve.knots[-1])
        self.tolerance = setting.tolerance
        self.steps = curve.rungs
        self.shared_step, self.packet = weights.shared_step, weights.packet
        self.added: list[list[float]] = []
        self.zero: list[float] = []
        cells = np.minimum((curve.knots * self.scale).astype(int), _GRID - 1)
        for rung in range(len(curve.ladder)):
            values = curve.added(rung, edges)
            highest = np.maximum(values[:-1], values[1:])
            np.maximum.at(highest, cells, curve.added(rung, curve.knots))
            self.added.append(highest.tolist())
            self.zero.append(float(curve.added(rung, np.zeros(1))[0]))

    def at(self, rung: int, distance: float) -> float:
        """Return what a rung adds at a distance."""
        if distance < 1e-9:
            return self.zero[rung]
        cell = int(distance * self.scale)
        return self.added[rung][cell] if cell < _GRID else _INFINITE

    def cost(self, rung: int, tasks: int, own: float, shared: bool) -> float:
        """Return the cost of a rung of a block."""
        if not shared:
            return own * self.steps[rung]
        return self.shared_step * self.steps[rung] + (self.packet * tasks if rung == 0 else 0.0)


class Forest:
    """The blocks of points at every rung; at first every point is by itself.

    Attributes:
        squares: Squared distances of the points.
        used: Damage of each point.
        changes: A number for each point that is another one after any change of its tree.
        blocks: For each rung, the block of each point.
    """

    def __init__(
        self,
        tables: Tables,
        squares: Sequence[Sequence[float]],
        counts: Sequence[int],
        own: Sequence[float],
        slack: Sequence[float],
    ) -> None:
        """Make a forest of single points.

        Args:
            tables: The setting's tables.
            squares: Squared distances of the points.
            counts: Number of tasks of each point.
            own: Cost of a step on the devices of each point's tasks, together.
            slack: What is added to each point's distances.
        """
        self.tables, self.squares = tables, squares
        self.counts, self.own, self.slack = counts, own, slack
        self.used = [0.0] * len(counts)
        self.changes = [0] * len(counts)
        self._clock = 0
        self.blocks: list[list[Block]] = [[] for _ in tables.steps]
        self._alone = [self._single(point) for point in range(len(counts))]
        self._pairs: dict[tuple[int, int], tuple[Block, Block, Together]] = {}
        self._merges: dict[tuple[int, int], tuple[Block, Block, Together]] = {}
        for blocks, _ in self._alone:
            for row, block in zip(self.blocks, blocks, strict=True):
                row.append(block)
        self.dissolve(range(len(counts)))

    def _single(self, point: int) -> tuple[list[Block], float]:
        """Return the blocks of a point by itself, and its damage there."""
        tables, count, own = self.tables, self.counts[point], self.own[point]
        used, shared, blocks = 0.0, count > 1 and tables.shared_step < own, []
        for rung in range(len(tables.steps)):
            extra = tables.at(rung, self.slack[point]) if shared else 0.0
            if used + extra > tables.tolerance:
                shared, extra = False, 0.0
            used += extra
            cost = tables.cost(rung, count, own, shared)
            blocks.append(Block((point,), count, own, (0.0,), 0.0, (extra,), cost, shared))
        return blocks, used

    def cost(self, points: Iterable[int]) -> float:
        """Return the cost of all blocks that hold some of the points."""
        chosen = list(points)
        return sum(
            block.cost for row in self.blocks for block in {id(row[p]): row[p] for p in chosen}.values()
        )

    def tree(self, point: int) -> tuple[int, ...]:
        """Return the points of a point's tree."""
        return self.blocks[0][point].points

    def dissolve(self, points: Iterable[int]) -> None:
        """Put points, of which whole trees are given, by themselves."""
        self._merges.clear()
        for point in points:
            blocks, self.used[point] = self._alone[point]
            self._clock += 1
            self.changes[point] = self._clock
            for row, block in zip(self.blocks, blocks, strict=True):
                row[point] = block

    def kept(self, points: Sequence[int]) -> tuple[list[list[Block]], list[float]]:
        """Return what `restore` needs to undo changes of the trees of some points."""
        return [[row[p] for p in points] for row in self.blocks], [self.used[p] for p in points]

    def restore(self, points: Sequence[int], kept: tuple[list[list[Block]], list[float]]) -> None:
        """Undo all changes since `kept`."""
        for row, blocks in zip(self.blocks, kept[0], strict=True):
            for point, block in zip(points, blocks, strict=True):
                row[point] = block
        for point, used in zip(points, kept[1], strict=True):
            self.used[point] = used

    def best_merge(self, one: int, other: int, power: float, last: int) -> tuple[float, Merge] | None:
        """Return the merge of two points' blocks with the highest score; None if none is possible.

        The score is gain / extra^power, so a power of 0 looks at the gain alone.

        Args:
            one: A point.
            other: Another point.
            power: Power of the score.
            last: The last rung to merge at.
        """
        best: tuple[float, Merge] | None = None
        new: dict[int, float] = {}
        gain = extra = 0.0
        counts, tolerance = self.counts, self.tables.tolerance
        for rung in range(last + 1):
            row = self.blocks[rung]
            a, b = row[one], row[other]
            if a is b:
                continue
            added, _, _ = self._together(rung, a, b)
            own = a.own + b.own
            gain += a.cost + b.cost - self.tables.cost(rung, a.tasks + b.tasks, own, True)
            position = 0
            for block in (a, b):
                for point, old in zip(block.points, block.added, strict=True):
                    change = added[position] - old
                    position += 1
                    now = new.get(point, self.used[point]) + change
                    if now > tolerance:
                        return best
                    new[point] = now
                    extra += counts[point] * change
            if gain > 1e-9:
                score = gain / max(extra, 1e-3 * tolerance + 1e-12) ** power
                if best is None or score > best[0]:
                    best = score, Merge(gain, extra, rung)
        return best

    def merge(self, one: int, other: int, rung: int) -> None:
        """Merge the blocks of two points at all rungs up to one; it must be possible."""
        self._clock += 1
        for level in range(rung + 1):
            row = self.blocks[level]
            a, b = row[one], row[other]
            if a is b:
                continue
            added, sums, total = self._together(level, a, b)
            points = a.points + b.points
            for point, now, old in zip(points, added, a.added + b.added, strict=True):
                self.used[point] += now - old
            tasks, own = a.tasks + b.tasks, a.own + b.own
            cost = self.tables.cost(level, tasks, own, True)
            block = Block(points, tasks, own, tuple(sums), total, tuple(added), cost, True)
            for point in points:
                row[point] = block
        for point in self.blocks[0][one].points:
            self.changes[point] = self._clock

    def _together(self, rung: int, a: Block, b: Block) -> Together:
        """Return what both blocks would be as one; answers are kept, with their blocks, until blocks are dissolved."""
        known = self._pairs if len(a.points) == 1 == len(b.points) else self._merges
        key = (id(a), id(b))
        if key in known:
            return known[key][2]
        found = self._computed(rung, a, b)
        known[key] = a, b, found
        return found

    def _computed(self, rung: int, a: Block, b: Block) -> Together:
        squares, counts = self.squares, self.counts
        if len(a.points) == 1 and len(b.points) == 1:
            p, m = a.points[0], b.points[0]
            square = squares[p][m]
            from_a, from_b = [counts[m] * square], [counts[p] * square]
        else:
            b_counts = [counts[m] for m in b.points]
            from_a, from_b = [], [0.0] * len(b.points)
            for p in a.points:
                line, count = squares[p], counts[p]
                values = [line[m] for m in b.points]
                from_a.append(sum(map(mul, b_counts, values)))
                from_b = [before + count * value for before, value in zip(from_b, values, strict=True)]
        sums = list(map(add, a.sums, from_a)) + list(map(add, b.sums, from_b))
        cross = sum(counts[p] * value for p, value in zip(a.points, from_a, strict=True))
        total = a.total + b.total + 2 * cross
        tasks = a.tasks + b.tasks
        half = total / (2 * tasks * tasks)
        at, slack, added = self.tables.at, self.slack, []
        for p, value in zip(a.points + b.points, sums, strict=True):
            square = value / tasks - half
            added.append(at(rung, (sqrt(square) if square > 0 else 0.0) + slack[p]))
        return added, sums, total
