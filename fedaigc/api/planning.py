"""Who shares which steps among waiting prompts: a sharing tree by any planner, its cost, and it as text and table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from fedaigc.collaboration.link import LinkReport
from fedaigc.errors import UserError
from fedaigc.planning.cost import PlanCost, misses_deadline, plan_cost
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.deadlines import plan_in_time
from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.planners.registry import planner as planner_called
from fedaigc.planning.setting import EDGE, Link, Machine, Machines, Setting, Weights
from fedaigc.planning.tasks import Tasks
from fedaigc.semantics.denoiser.calibration import Calibration

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class SharingTree:
    """The plan of waiting tasks: nodes of tasks that share steps. As text, it is the tree.

    Attributes:
        tasks: The tasks, as columns.
        setting: Damage, tolerance, machines and cost for which it was planned.
        plan: The nodes, and the hand-off of each task.
        now: Time at which it starts, in seconds.
    """

    tasks: Tasks
    setting: Setting
    plan: Plan
    now: float

    @cached_property
    def cost(self) -> PlanCost:
        """Evaluations, steps by machine, packets, bits, joules and seconds; `cost.saved` is the share saved."""
        return plan_cost(self.plan, self.tasks, self.setting)

    @property
    def late(self) -> list[str]:
        """Ids of the tasks that miss their deadline; those would miss it alone, too."""
        late = misses_deadline(self.plan, self.tasks, self.setting, self.now)
        return [self.tasks.ids[row] for row in np.flatnonzero(late)]

    def to_pandas(self) -> "pandas.DataFrame":
        """Return one row a node: `node`, `parent` (-1 for a root), `start`, `stop`, `executor`, `tasks`, `ids`."""
        import pandas

        rows = [
            {
                "node": number,
                "parent": -1 if node.parent is None else node.parent,
                "start": node.start,
                "stop": node.stop,
                "executor": EDGE if node.executor == EDGE else f"user {node.executor}",
                "tasks": len(node.members),
                "ids": [self.tasks.ids[row] for row in node.members],
            }
            for number, node in enumerate(self.plan.nodes)
        ]
        return pandas.DataFrame(rows, columns=["node", "parent", "start", "stop", "executor", "tasks", "ids"])

    def __str__(self) -> str:
        children: dict[int | None, list[int]] = {}
        for number, node in enumerate(self.plan.nodes):
            children.setdefault(node.parent, []).append(number)
        lines = []

        def add(number: int, depth: int) -> None:
            node = self.plan.nodes[number]
            names = ", ".join(self.tasks.ids[row] for row in node.members[:4])
            more = ", ..." if len(node.members) > 4 else ""
            lines.append(
                f"{'  ' * depth}steps {node.start} to {node.stop}: {len(node.members)} tasks ({names}{more})"
            )
            for child in children.get(number, []):
                add(child, depth + 1)

        for root in children.get(None, []):
            add(root, 0)
        alone = int((self.plan.handoffs == 0).sum())
        cost = self.cost
        lines.append(
            f"{alone} of {len(self.tasks)} tasks alone; {cost.alone - cost.evaluations} of {cost.alone} steps saved"
        )
        return "\n".join(lines)


def sharing_tree(
    vectors: ArrayLike,
    damage: Calibration | DamageCurve | str | Path,
    *,
    tolerance: float,
    planner: str | Planner = "greedy_tree",
    ids: Sequence[str] | None = None,
    users: ArrayLike | None = None,
    deadlines: ArrayLike | None = None,
    batteries: ArrayLike | None = None,
    now: float = 0.0,
    edge: Machine | None = None,
    device: Machine | None = None,
    packet: LinkReport | None = None,
    executor: str = "edge",
    minimise: str = "evaluations",
) -> SharingTree:
    """Plan which waiting tasks share which steps. Nothing is drawn, and no model is needed.

    Example:
        >>> import fedaigc as fa
        >>> import numpy as np
        >>> damage = np.array([[0.0, 0.1, 0.2], [0.0, 0.2, 0.4]])  # at hand-off 3 and 5, at these distances:
        >>> curve = fa.DamageCurve(11, (3, 5), np.array([0.0, 20.0, 40.0]), damage)
        >>> near = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [90.0, 0.0]]
        >>> tree = fa.sharing_tree(near, curve, tolerance=0.1, deadlines=[30, 30, 30, 30])
        >>> print(tree)
        steps 0 to 5: 3 tasks (0, 1, 2)
        1 of 4 tasks alone; 10 of 44 steps saved

    Args:
        vectors: A row a task, in the space of the sharing distance: result of `sharing_vectors`.
        damage: What sharing costs: result of `calibrate`, the path of one, or a curve of your own. It belongs to the
            space of the vectors.
        tolerance: The largest predicted damage of a picture.
        planner: Name of a planner, such as "greedy_tree", "ward", "kmeans", "fixed" or "none", or one of your own:
            a function of `Tasks` and `Setting` to a `Plan`.
        ids: Names of the tasks, such as the prompts. None: their numbers.
        users: User of each task. None: one user a task.
        deadlines: Time by which each picture is due, in seconds of the clock of `now`. None: no deadline.
        batteries: Joules that the battery of each task's device holds: it runs no steps for others beyond them. None:
            devices on mains. It counts with `executor="member"`.
        now: Time at which the plan starts.
        edge: The edge server: seconds and joules of a step, and its batches. None: 1 s and 1 J.
        device: The device of each user, as `edge`.
        packet: What a packet costs: the report of `transmit`. None: nothing.
        executor: Who runs shared steps: "edge", the edge server, or "member", a member of each node.
        minimise: "evaluations" of the denoiser, whoever runs them, or "joules" of all machines and packets. Planners of
            groups, such as "kmeans", minimise neither.

    Raises:
        UserError: If a value is wrong; the message names it.
    """
    if minimise not in ("evaluations", "joules"):
        raise UserError(f'minimise is {minimise!r}: expected "evaluations" or "joules"')
    if executor != EDGE and executor != "member":
        raise UserError(f'executor is {executor!r}: expected "edge" or "member"')
    rows = _numbers("vectors", vectors)
    if rows.ndim != 2:
        raise UserError(f"vectors of shape {rows.shape}: expected a row a task, as of fa.sharing_vectors")
    if isinstance(damage, str | Path):
        damage = Calibration.read(Path(damage))
    curve = damage if isinstance(damage, DamageCurve) else DamageCurve.of(damage)
    given = Machines()
    link = Link()
    if packet is not None:
        link = Link(packet.bits_on_air, packet.latency_s, packet.send_j + packet.receive_j)
    who: Literal["edge", "member"] = "edge" if executor == EDGE else "member"
    machines = Machines(edge or given.edge, given.devices if device is None else (device,), link, who)
    weights = Weights.evaluations() if minimise == "evaluations" else Weights.joules(machines)
    setting = Setting(curve, tolerance, machines, weights)
    tasks = Tasks.of(
        rows,
        ids=ids,
        users=None if users is None else _column("users", users, len(rows)).astype(int),
        deadlines=None if deadlines is None else _column("deadlines", deadlines, len(rows)),
        batteries=None if batteries is None else _column("batteries", batteries, len(rows)),
    )
    chosen = planner_called(planner) if isinstance(planner, str) else planner
    return SharingTree(tasks, setting, plan_in_time(chosen, tasks, setting, now), now)


def _column(name: str, values: ArrayLike, number: int) -> np.ndarray:
    column = _numbers(name, values)
    if column.shape != (number,):
        raise UserError(f"{name} of shape {column.shape} for {number} tasks: expected one number a task")
    return column


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: expected numbers, and as many for each task") from error
