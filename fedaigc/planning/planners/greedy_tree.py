"""Sharing trees by merging: the method of this project, for ten tasks and for a hundred thousand.

1. Equal tasks are one point.
2. Points are divided into cells of bounded size (`search.cells`).
3. In each cell blocks are merged, best score first, at as many rungs as the tolerance allows (`search.forest`). A merge
   at a rung merges at all rungs before it too, so that the blocks are a tree of any depth.
4. Trees are taken apart and joined anew with other scores, and what costs less is kept (`search.agglomerate`). Most of
   these tries join the first rungs before the later ones: what many may share early is lost once few share for long.

Time grows as the number of points times the logarithm of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fedaigc.errors import UserError
from fedaigc.planning.plan import ALONE, Labels, Plan, plan_of
from fedaigc.planning.search.agglomerate import improve, join
from fedaigc.planning.search.cells import cells
from fedaigc.planning.search.forest import Forest, Tables
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

FIRST_POWER = 0.6


@dataclass(frozen=True)
class GreedyTree:
    """Plans by merging.

    Attributes:
        cell: The most points of a cell.
        tries: Number of tries to improve a cell.
        seed: Seed of these tries, at least 0. The plan depends on it, and not on the order of the tasks.

    Raises:
        UserError: If `cell` is below 2 or another number is negative.
    """

    cell: int = 48
    tries: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cell < 2 or self.tries < 0 or self.seed < 0:
            raise UserError(
                f"cell is {self.cell}, tries {self.tries}, seed {self.seed}: expected at least 2, and at least 0"
            )

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan."""
        return plan_of(self.labels(tasks, setting), tasks, setting)

    def labels(self, tasks: Tasks, setting: Setting) -> Labels:
        """Return the blocks of the tasks at every rung."""
        points = Points.of(tasks, setting)
        tables = Tables(setting)
        found = np.full((len(setting.curve.ladder), len(points.vectors)), ALONE)
        number = 0
        for rows in cells(points.vectors, self.cell):
            forest = points.forest(rows, tables)
            inside = list(range(len(rows)))
            join(forest, inside, FIRST_POWER)
            improve(forest, inside, np.random.default_rng([self.seed, len(rows)]), self.tries)
            number = write_blocks(forest, rows, found, number, inside)
        return Labels(found[:, points.of_task])


@dataclass(frozen=True, eq=False)
class Points:
    """Different tasks, each once.

    Attributes:
        vectors: Their vectors.
        counts: How many tasks each stands for.
        own: Cost of a step on the devices of these tasks, together.
        slack: Their slack.
        of_task: Point of each task.
    """

    vectors: Float[np.ndarray, "n d"]
    counts: Int[np.ndarray, " n"]
    own: Float[np.ndarray, " n"]
    slack: Float[np.ndarray, " n"]
    of_task: Int[np.ndarray, " tasks"]

    @classmethod
    def of(cls, tasks: Tasks, setting: Setting) -> "Points":
        """Return the points of tasks, in an order that depends on their values alone."""
        rows = np.column_stack([tasks.vectors, tasks.slack])
        different, of_task = np.unique(rows, axis=0, return_inverse=True)
        of_task = of_task.reshape(-1)
        own = np.zeros(len(different))
        # class by class, so that the order of the tasks does not even change the rounding
        for kind, weight in enumerate(setting.weights.own_step):
            own += weight * np.bincount(of_task[tasks.classes == kind], minlength=len(different))
        counts = np.bincount(of_task, minlength=len(different))
        return cls(different[:, :-1], counts, own, different[:, -1], of_task)

    def forest(self, rows: Int[np.ndarray, " m"], tables: Tables) -> Forest:
        """Return a forest of some of the points."""
        vectors = self.vectors[rows]
        squares = ((vectors[:, None] - vectors) ** 2).sum(2)
        return Forest(
            tables,
            squares.tolist(),
            self.counts[rows].tolist(),
            self.own[rows].tolist(),
            self.slack[rows].tolist(),
        )


def write_blocks(
    forest: Forest,
    rows: Int[np.ndarray, " m"],
    blocks: Int[np.ndarray, "rungs n"],
    number: int,
    points: Sequence[int],
) -> int:
    """Write the blocks of points into the columns `rows`, numbered from `number` on; return the next number.

    A tree that costs as much as its tasks alone is left out.
    """
    steps = sum(forest.tables.steps)
    for tree in {id(forest.blocks[0][p]): forest.blocks[0][p] for p in points}.values():
        if not tree.shared or forest.cost(tree.points) >= tree.own * steps - 1e-9:
            continue
        for row, line in zip(forest.blocks, blocks, strict=True):
            for block in {id(row[p]): row[p] for p in tree.points}.values():
                if block.shared:
                    line[rows[list(block.points)]] = number
                    number += 1
    return number
