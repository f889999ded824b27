"""A plan: a forest of nodes, and the hand-off of each task.

A node is a set of tasks that share the steps from `start` to `stop` on one conditioning. Its parent runs the steps
before, and holds all of its members and more. A task leaves at the end of the last node that holds it, and its own
device runs the rest. Tasks in no node run alone, with hand-off 0.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.setting import EDGE, Setting
from fedaigc.planning.tasks import Tasks

ALONE = -1


@dataclass(frozen=True, eq=False)
class Node:
    """Steps that several tasks share.

    Attributes:
        members: Rows of the tasks, ascending.
        start: The first step.
        stop: The hand-off: the step after the last one.
        conditioning: Where the node's conditioning lies in the space of the sharing distance. If `caption` is None,
            the mean of the members that the planner put together.
        parent: Index of the parent in the plan, smaller than the own; None for a root.
        executor: "edge", or the user of the member that runs the steps.
        caption: Index of the public caption that is the conditioning; None if it is a mean.
    """

    members: Int[np.ndarray, " m"]
    start: int
    stop: int
    conditioning: Float[np.ndarray, " d"]
    parent: int | None
    executor: str | int = EDGE
    caption: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """A forest of nodes over tasks.

    Attributes:
        nodes: The nodes; a parent stands before its children.
        handoffs: Hand-off of each task; 0 if it runs alone.
    """

    nodes: tuple[Node, ...]
    handoffs: Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Labels:
    """A forest as planners build it: for each rung of the ladder, which tasks are together.

    Attributes:
        blocks: Number of the block of each task at each rung, or ALONE. Tasks of one block were in one block at every
            earlier rung.
        centres: For each rung, the conditioning of each block, by its number. None: the mean of its tasks.
    """

    blocks: Int[np.ndarray, "rungs n"]
    centres: tuple[Float[np.ndarray, "_ d"], ...] | None = None


def means(vectors: Float[np.ndarray, "n d"], blocks: Int[np.ndarray, " n"]) -> Float[np.ndarray, "_ d"]:
    """Return the mean vector of each block, by its number; tasks of block ALONE are in none."""
    rows = np.flatnonzero(blocks != ALONE)
    number = int(blocks.max(initial=ALONE)) + 1
    order = rows[np.argsort(blocks[rows], kind="stable")]
    found = np.zeros((number, vectors.shape[1]))
    if len(order):
        used, first = np.unique(blocks[order], return_index=True)
        sums = np.add.reduceat(vectors[order], first, axis=0)
        found[used] = sums / np.diff([*first, len(order)])[:, None]
    return found


def left_in_time(labels: Labels, tasks: Tasks, curve: DamageCurve, tolerance: float) -> Labels:
    """Return the labels where every task leaves at the last rung that keeps its damage within the tolerance.

    The conditionings stay those of the members that were put together. Blocks that one task is left in are dissolved.
    """
    blocks = np.full_like(labels.blocks, ALONE)
    centres = labels.centres or tuple(means(tasks.vectors, row) for row in labels.blocks)
    damage = np.zeros(len(tasks))
    inside = np.ones(len(tasks), bool)
    for rung, row in enumerate(labels.blocks):
        inside &= row != ALONE
        rows = np.flatnonzero(inside)
        away = np.linalg.norm(tasks.vectors[rows] - centres[rung][row[rows]], axis=1) + tasks.slack[rows]
        damage[rows] += curve.added(rung, away)
        inside &= damage <= tolerance + 1e-12
        # what one task is left in is no sharing
        left = np.bincount(row[inside], minlength=len(centres[rung]))
        inside[inside] = left[row[inside]] > 1
        blocks[rung, inside] = row[inside]
    return Labels(blocks, centres)


def plan_of(labels: Labels, tasks: Tasks, setting: Setting) -> Plan:
    """Return the plan of labels; successive blocks with the same members and conditioning are one node."""
    curve = setting.curve
    handoffs = np.zeros(len(tasks), int)
    centres = labels.centres or tuple(means(tasks.vectors, row) for row in labels.blocks)
    nodes: list[Node] = []
    above: dict[int, int] = {}  # block of the rung before -> its node
    burden: Counter[int] = Counter()
    for rung, row in enumerate(labels.blocks):
        rows = np.flatnonzero(row != ALONE)
        handoffs[rows] = curve.ladder[rung]
        order = rows[np.argsort(row[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(row[order])) + 1
        here: dict[int, int] = {}
        for members in np.split(order, cuts) if len(order) else ():
            block = int(row[members[0]])
            parent = above[int(labels.blocks[rung - 1, members[0]])] if rung else None
            centre = centres[rung][block]
            before = nodes[parent] if parent is not None else None
            if (
                before is not None
                and len(before.members) == len(members)
                and np.allclose(before.conditioning, centre, rtol=0, atol=1e-12)
            ):
                assert parent is not None
                nodes[parent] = _longer(before, curve.ladder[rung])
                here[block] = parent
                continue
            executor = _executor(members, before, tasks, setting, burden)
            start = curve.ladder[rung - 1] if rung else 0
            here[block] = len(nodes)
            nodes.append(Node(members, start, curve.ladder[rung], centre, parent, executor))
        above = here
    return Plan(tuple(nodes), handoffs)


def _longer(node: Node, stop: int) -> Node:
    return Node(node.members, node.start, stop, node.conditioning, node.parent, node.executor, node.caption)


def _executor(
    members: Int[np.ndarray, " m"], parent: Node | None, tasks: Tasks, setting: Setting, burden: Counter[int]
) -> str | int:
    """Return who runs a node: the parent's helper if it is a member, else the member that runs the fewest nodes."""
    if setting.machines.executor == EDGE:
        return EDGE
    users = {int(user) for user in tasks.users[members]}
    if parent is not None and parent.executor in users:
        return parent.executor
    chosen = min(users, key=lambda user: (burden[user], user))
    burden[chosen] += 1
    return chosen


def without_tasks(plan: Plan, leaving: Bool[np.ndarray, " n"], tasks: Tasks) -> Plan:
    """Return the plan with some tasks alone; the others keep their conditionings, so that no damage grows.

    A node that fewer than two tasks are left in is dissolved, and a helper that leaves is replaced.
    """
    index: dict[int, int] = {}
    nodes: list[Node] = []
    handoffs = np.zeros_like(plan.handoffs)
    for old, node in enumerate(plan.nodes):
        members = node.members[~leaving[node.members]]
        if len(members) < 2 or (node.parent is not None and node.parent not in index):
            continue
        executor, users = node.executor, tasks.users[members]
        if executor != EDGE and executor not in users:
            executor = int(users.min())
        parent = None if node.parent is None else index[node.parent]
        index[old] = len(nodes)
        nodes.append(replace(node, members=members, parent=parent, executor=executor))
        handoffs[members] = node.stop
    return Plan(tuple(nodes), handoffs)
