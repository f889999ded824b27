"""Tasks that arrive, wait, and depart together: a plan that is kept up to date with bounded work for each task.

Waiting tasks lie in cells, by hyperplanes that stay where they were drawn. An arrival changes the forest of its cell
alone, and a cell has at most `cell` points, so the work for it does not depend on how many tasks wait. A cell that gets
more is divided.

A task waits for others until its window or its deadline calls. Then its whole tree departs.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from jaxtyping import Float

from fedaigc.errors import UserError
from fedaigc.planning.deadlines import in_time
from fedaigc.planning.plan import ALONE, Labels, Plan, plan_of
from fedaigc.planning.planners.greedy_tree import FIRST_POWER, write_blocks
from fedaigc.planning.search.agglomerate import improve, join
from fedaigc.planning.search.cells import spread, widest_gap
from fedaigc.planning.search.forest import Tables
from fedaigc.planning.search.live_forest import LiveForest
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True, eq=False)
class Arrival:
    """A task that arrives; the attributes are those of `Tasks`, in the singular."""

    id: str
    vector: Float[np.ndarray, " d"]
    time: float
    user: int = 0
    deadline: float = np.inf
    kind: int = 0
    slack: float = 0.0
    battery: float = np.inf


@dataclass(frozen=True, eq=False)
class Departure:
    """Tasks that leave together, and their plan."""

    tasks: Tasks
    plan: Plan


@dataclass(eq=False)
class _Cell:
    """A leaf with points, or a hyperplane with two cells."""

    forest: LiveForest
    vectors: Float[np.ndarray, "places d1"]
    waiting: list[dict[str, Arrival]]  # of each place
    places: dict[bytes, int] = field(default_factory=dict)
    events: int = 0
    direction: Float[np.ndarray, " d"] | None = None
    threshold: float = 0.0
    below: "_Cell | None" = None
    above: "_Cell | None" = None


class Stream:
    """The waiting tasks and their plan.

    Attributes:
        setting: The setting.
        window: The most seconds that a task waits.
    """

    def __init__(
        self, setting: Setting, window: float, *, cell: int = 48, every: int = 8, seed: int = 0
    ) -> None:
        """Begin with no tasks.

        Args:
            setting: The setting.
            window: The most seconds that a task waits.
            cell: The most points of a cell.
            every: After every so many arrivals in a cell, one try to improve it; 0: none.
            seed: Seed of these tries.

        Raises:
            UserError: If a number is out of range.
        """
        if not window >= 0 or cell < 2 or every < 0:
            raise UserError(f"window {window}, cell {cell}, every {every}: expected at least 0, 2 and 0")
        self.setting, self.window = setting, window
        self._cell, self._every = cell, every
        self._tables = Tables(setting)
        self._random = np.random.default_rng(seed)
        self._root: _Cell | None = None
        self._where: dict[str, tuple[_Cell, int]] = {}
        self._due: list[tuple[float, str, float]] = []

    def __len__(self) -> int:
        return len(self._where)

    @property
    def next_due(self) -> float:
        """Time at which the next task has to depart; infinite if none waits."""
        while self._due and not self._waits(*self._due[0][1:]):
            heappop(self._due)
        return self._due[0][0] if self._due else np.inf

    def arrive(self, task: Arrival) -> None:
        """Take a task into the plan.

        Raises:
            UserError: If a task with this id waits, its vector has another length, or its class is unknown.
        """
        if task.id in self._where:
            raise UserError(f"task {task.id} waits already: expected different ids")
        if task.kind not in range(len(self.setting.machines.devices)):
            raise UserError(
                f"task {task.id} has class {task.kind}: there are {len(self.setting.machines.devices)}"
            )
        if not np.isfinite(task.vector).all() or not (task.slack >= 0 and task.battery >= 0):
            raise UserError(f"task {task.id} has a vector that is not finite, or a negative slack or battery")
        if self._root is None:
            self._root = self._empty(len(task.vector))
        length = self._root.vectors.shape[1] - 1
        if task.vector.shape != (length,):
            raise UserError(f"task {task.id} has a vector of shape {task.vector.shape}: expected ({length},)")
        cell = self._leaf(task)
        place = self._put(cell, task)
        cell.forest.reach(place)
        cell.events += 1
        if self._every and cell.events % self._every == 0:
            improve(cell.forest, cell.forest.present, self._random, 1)
        heappush(self._due, (self._leaves_by(task), task.id, task.time))
        if len(cell.places) > self._cell:
            self._divide(cell)

    def withdraw(self, task_id: str) -> None:
        """Take a task that waits out of the plan.

        Raises:
            UserError: If it does not wait.
        """
        if task_id not in self._where:
            raise UserError(f"task {task_id} does not wait")
        cell, place = self._where.pop(task_id)
        task = cell.waiting[place].pop(task_id)
        cell.forest.add(place, -1, -self.setting.weights.own_step[task.kind])
        if not cell.waiting[place]:
            del cell.places[_key(task)]

    def depart(self, now: float) -> list[Departure]:
        """Return the trees with a task that is due, each with its plan; they no longer wait.

        Members that would miss a deadline by sharing run alone, and no device helps beyond its battery.
        """
        found = []
        while self.next_due <= now and self._where:
            cell, place = self._where[self._due[0][1]]
            tree = list(cell.forest.tree(place))
            gone = [task for p in tree for task in cell.waiting[p].values()]
            tasks = _columns(gone)
            plan = plan_of(self._labels([(cell, tree)], tasks), tasks, self.setting)
            for task in gone:
                del self._where[task.id]
            for p in tree:
                del cell.places[_key(next(iter(cell.waiting[p].values())))]
                cell.waiting[p] = {}
            cell.forest.clear(tree)
            found.append(Departure(tasks, in_time(plan, tasks, self.setting, now)))
        return found

    def plan(self) -> Departure:
        """Return all waiting tasks and their plan, which is not carried out."""
        parts: dict[int, tuple[_Cell, list[int]]] = {}
        for cell, _ in self._where.values():
            parts.setdefault(id(cell), (cell, cell.forest.present))
        waiting = [t for cell, places in parts.values() for p in places for t in cell.waiting[p].values()]
        if not waiting:
            raise UserError("no task waits: there is nothing to plan")
        tasks = _columns(waiting)
        return Departure(tasks, plan_of(self._labels(list(parts.values()), tasks), tasks, self.setting))

    def _labels(self, parts: list[tuple[_Cell, list[int]]], tasks: Tasks) -> Labels:
        """Return the labels of the tasks of some places, in the order of parts, places and arrival."""
        columns, counts, number = [], [], 0
        for cell, places in parts:
            rows = np.arange(len(cell.vectors))
            blocks = np.full((len(self._tables.steps), len(rows)), ALONE)
            number = write_blocks(cell.forest, rows, blocks, number, places)
            columns.append(blocks[:, places])
            counts += [len(cell.waiting[p]) for p in places]
        return Labels(np.repeat(np.concatenate(columns, axis=1), counts, axis=1))

    def _waits(self, task_id: str, arrived: float) -> bool:
        if task_id not in self._where:
            return False
        cell, place = self._where[task_id]
        # an id may come again
        return cell.waiting[place][task_id].time == arrived

    def _leaves_by(self, task: Arrival) -> float:
        device = self.setting.machines.devices[task.kind]
        alone = self.setting.curve.steps * device.step_s + device.image_s
        return max(task.time, min(task.time + self.window, task.deadline - alone))

    def _empty(self, dimensions: int) -> _Cell:
        places = self._cell + 1
        forest = LiveForest(self._tables, places, FIRST_POWER)
        return _Cell(forest, np.zeros((places, dimensions + 1)), [{} for _ in range(places)])

    def _leaf(self, task: Arrival) -> _Cell:
        cell, point = self._root, _point(task)
        assert cell is not None
        while cell.direction is not None:
            cell = cell.above if float(cell.direction @ point) > cell.threshold else cell.below
            assert cell is not None
        return cell

    def _put(self, cell: _Cell, task: Arrival) -> int:
        """Put a task into a leaf, without merging a new point with others."""
        own, key = self.setting.weights.own_step[task.kind], _key(task)
        place = cell.places.get(key)
        if place is None:
            place = next(p for p, tasks in enumerate(cell.waiting) if not tasks)
            cell.places[key] = place
            cell.vectors[place] = _point(task)
            line = ((cell.vectors[:, :-1] - task.vector) ** 2).sum(1)
            cell.forest.put(place, line.tolist(), own, task.slack)
        else:
            cell.forest.add(place, 1, own)
        cell.waiting[place][task.id] = task
        self._where[task.id] = cell, place
        return place

    def _divide(self, cell: _Cell) -> None:
        """Divide a leaf in two."""
        places = cell.forest.present
        points = cell.vectors[places]
        cell.direction = spread(points)
        # as `_leaf` multiplies them, so that both sides get some
        along = np.sort([float(cell.direction @ point) for point in points])
        cell.threshold = float(along[widest_gap(along) - 1])
        cell.below, cell.above = self._empty(points.shape[1] - 1), self._empty(points.shape[1] - 1)
        for place in places:
            for task in cell.waiting[place].values():
                self._put(self._leaf(task), task)
        for part in (cell.below, cell.above):
            join(part.forest, part.forest.present, FIRST_POWER)
        cell.waiting, cell.places = [], {}


def _point(task: Arrival) -> Float[np.ndarray, " d1"]:
    """Return what tells a task from others that are not equal to it: its vector, then its slack."""
    return np.append(task.vector, task.slack)


def _key(task: Arrival) -> bytes:
    return _point(task).tobytes()


def _columns(tasks: list[Arrival]) -> Tasks:
    return Tasks(
        tuple(task.id for task in tasks),
        np.array([task.vector for task in tasks]),
        np.array([task.user for task in tasks]),
        np.array([task.time for task in tasks]),
        np.array([task.deadline for task in tasks]),
        np.array([task.kind for task in tasks]),
        np.array([task.slack for task in tasks]),
        np.array([task.battery for task in tasks]),
    )
