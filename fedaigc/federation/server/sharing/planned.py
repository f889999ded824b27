"""Groups and trees from a planner of `fedaigc.planning`, as a run can carry them out.

A planner puts tasks together in the space of the sharing distance, where any mean may be a conditioning. Shared steps
run on public prompts: of the tasks of each node, those that a public prompt holds together stay, and each of them
leaves when its risk is expected to be used up. What is left in which no machine would compute for one task alone is the
tree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedaigc.collaboration.planner import Executor
from fedaigc.collaboration.tree import Branch, settled
from fedaigc.federation.server.sharing.known_tasks import Common, KnownTasks, Way
from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.setting import EDGE, Machine, Machines, Setting, Weights
from fedaigc.planning.tasks import Tasks
from fedaigc.semantics.grouping import Group
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE, DeviceProfile


@dataclass(frozen=True)
class PlannedGroups:
    """What a planner decided.

    Attributes:
        groups: All groups, in the order of their first task ids; tasks that run alone are groups of one.
        handoffs: Hand-off of each task that shares.
        branches: Branches of the groups that are trees, by their smallest task ids.
    """

    groups: tuple[Group, ...]
    handoffs: dict[str, int] = field(default_factory=dict)
    branches: dict[str, tuple[Branch, ...]] = field(default_factory=dict)

    def and_those_of(self, other: "PlannedGroups") -> "PlannedGroups":
        """Return both plans as one, of different tasks."""
        groups = tuple(sorted([*self.groups, *other.groups], key=lambda group: group.members))
        return PlannedGroups(groups, self.handoffs | other.handoffs, self.branches | other.branches)


@dataclass(eq=False)
class _Line:
    """Steps that tasks share on one public prompt, while a tree grows."""

    common: Common
    start: int
    rows: list[int] = field(default_factory=list)
    below: list["_Line"] = field(default_factory=list)


class _Forest:
    """The trees of a plan, on public prompts.

    Args:
        known: What is known of the tasks.
        rows: Row of each task of the plan.
        plan: The plan.
    """

    def __init__(self, known: KnownTasks, rows: Sequence[int], plan: Plan) -> None:
        self._known = known
        self._roots: list[_Line] = []
        self._place: dict[int, _Line] = {}
        self._ways: dict[int, Way] = {}
        for node in plan.nodes:
            parent = plan.nodes[node.parent] if node.parent is not None else None
            same = parent is not None and np.array_equal(parent.conditioning, node.conditioning)
            self._add([rows[member] for member in node.members], node.start, node.stop, same=same)

    def _add(self, rows: Sequence[int], start: int, stop: int, *, same: bool) -> None:
        """Add the steps of a node; `same`: they continue those of its parent on the same conditioning."""
        rungs = [rung for rung, step in enumerate(self._known.rules.ladder) if start < step <= stop]
        parts: dict[_Line | None, list[int]] = {}
        for row in rows:
            # a task that no prompt held before is in no later node
            if len(self._ways.get(row, ())) == rungs[0]:
                parts.setdefault(self._place.get(row), []).append(row)
        for line, part in parts.items():
            if line is not None and same:
                pieces = [(line.common, part)]
            else:
                pieces = self._known.divided(part, lambda row: self._ways.get(row, ()), rungs)
            for common, inside in pieces:
                if len(inside) > 1:
                    self._put(self._line(line, common, start), inside, len(rungs))

    def _line(self, parent: _Line | None, common: Common, start: int) -> _Line:
        """Return the line on a prompt: the parent, one that another node began, or a new one."""
        if parent is not None and parent.common == common:
            return parent
        among = self._roots if parent is None else parent.below
        if parent is not None:
            for line in among:
                if line.common == common and line.start == start:
                    return line
        among.append(_Line(common, start))
        return among[-1]

    def _put(self, line: _Line, rows: Sequence[int], rungs: int) -> None:
        for row in rows:
            if self._place.get(row) is not line:
                line.rows.append(row)
                self._place[row] = line
            self._ways[row] = (*self._ways.get(row, ()), *(line.common,) * rungs)

    def trees(self) -> Iterator[tuple[Common, tuple[Branch, ...], dict[str, int]]]:
        """Yield the prompt of each tree, its branches, and the hand-off that each task is expected to take."""
        tasks, ladder = self._known.tasks, self._known.rules.ladder
        for root in self._roots:
            steps = {
                tasks[row]: min(ladder[len(way) - 1], self._known.last(row, way))
                for row in root.rows
                for way in (self._ways[row],)
            }
            branches: list[Branch] = []
            waiting = [(line, 0) for line in root.below]
            for line, parent in waiting:
                members = tuple(sorted(tasks[row] for row in line.rows))
                stop = max(ladder[len(self._ways[row]) - 1] for row in line.rows)
                branches.append(
                    Branch(members, line.common.prompt, line.start, stop, parent, line.common.node)
                )
                waiting += [(below, len(branches)) for below in line.below]
            yield root.common, tuple(branches), steps


def planned_groups(
    planner: Planner,
    known: KnownTasks,
    waiting: Mapping[str, int],
    machines: Machines,
    weights: Weights,
) -> PlannedGroups:
    """Return groups and trees of the waiting tasks.

    Args:
        planner: The planner.
        known: What is known of tasks that may share.
        waiting: Client of every waiting task, by id.
        machines: The machines and the link.
        weights: What the planner minimises.

    Raises:
        UserError: If the planner cannot plan so many tasks.
    """
    rules = known.rules
    setting = Setting(rules.curve, rules.risk, machines, weights)
    groups: list[Group] = []
    handoffs: dict[str, int] = {}
    branches: dict[str, tuple[Branch, ...]] = {}
    for rows in known.families():
        if len(rows) < 2:
            continue
        vectors, slack = known.points(rows)
        ids = [known.tasks[row] for row in rows]
        users = np.array([waiting[task] for task in ids])
        plan = planner(Tasks.of(vectors, ids=ids, users=users, slack=slack), setting)
        for common, grown, expected in _Forest(known, rows, plan).trees():
            found = settled(grown, expected)
            members = tuple(sorted(task for task, step in found.handoffs.items() if step))
            if not members:
                continue
            groups.append(Group(members, common.prompt, common.signature, common.node))
            handoffs |= {task: found.handoffs[task] for task in members}
            if found.branches:
                branches[members[0]] = found.branches
    return PlannedGroups(with_those_alone(groups, waiting), handoffs, branches)


def with_those_alone(groups: Sequence[Group], tasks: Mapping[str, int] | Sequence[str]) -> tuple[Group, ...]:
    """Return groups with a group of one for each task in none of them, in the order of their first task ids."""
    grouped = {task for group in groups for task in group.members}
    alone = [Group((task,), "", None) for task in tasks if task not in grouped]
    return tuple(sorted([*groups, *alone], key=lambda group: group.members))


def machines_of(executor: Executor) -> Machines:
    """Return the built-in machines: an edge server and phones, with the figures of their profiles."""
    return Machines(
        _machine(EDGE_SERVER), (_machine(PHONE),), executor="member" if executor is Executor.MEMBER else EDGE
    )


def _machine(profile: DeviceProfile) -> Machine:
    return Machine(
        profile.name,
        profile.step_s,
        profile.step_j,
        image_s=profile.text_s + profile.decode_s,
        image_j=profile.text_j + profile.decode_j,
    )
