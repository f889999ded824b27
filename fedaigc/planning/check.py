"""Whether a plan keeps its promises; it is computed from the nodes, and not as planners build them."""

import numpy as np

from fedaigc.planning.batteries import drained_helpers
from fedaigc.planning.cost import last_nodes, misses_deadline
from fedaigc.planning.plan import Plan
from fedaigc.planning.setting import EDGE, Setting
from fedaigc.planning.tasks import Tasks

_ROUNDING = 1e-9


def check_plan(plan: Plan, tasks: Tasks, setting: Setting, now: float | None = None) -> list[str]:
    """Return what is wrong with a plan, one sentence each; none if it is sound.

    Every task is in one place, nodes are nested and hand-offs rise from node to node, executors are members or the edge
    server, and every member's predicted damage is within the tolerance at every node.

    Args:
        plan: The plan.
        tasks: The tasks it was made for.
        setting: The setting it was made for.
        now: Time at which the plan starts. If given, tasks that miss a deadline although alone they would meet it
            are named, and users whose device helps although its battery does not last.
    """
    faults = _places(plan, tasks, setting) + _damages(plan, tasks, setting)
    if not faults and now is not None:
        alone = Plan((), np.zeros(len(tasks), int))
        late = misses_deadline(plan, tasks, setting, now) & ~misses_deadline(alone, tasks, setting, now)
        faults += [f"task {tasks.ids[row]} misses its deadline" for row in np.flatnonzero(late)]
        drained = sorted(drained_helpers(plan, tasks, setting))
        faults += [f"user {user} runs nodes beyond the battery" for user in drained]
    return faults


def _places(plan: Plan, tasks: Tasks, setting: Setting) -> list[str]:
    faults = []
    if plan.handoffs.shape != (len(tasks),):
        return [f"{plan.handoffs.shape} hand-offs for {len(tasks)} tasks"]
    held: dict[int | None, list[np.ndarray]] = {}
    for index, node in enumerate(plan.nodes):
        name = f"node {index}"
        if len(node.members) < 2 or not (np.diff(node.members) > 0).all():
            faults.append(f"{name} has members {node.members}: expected two and more different tasks")
        if node.stop not in setting.curve.ladder or node.start >= node.stop:
            faults.append(
                f"{name} runs from {node.start} to {node.stop}, the ladder is {setting.curve.ladder}"
            )
        if node.parent is None:
            if node.start:
                faults.append(f"{name} starts at {node.start} without a parent")
        elif not 0 <= node.parent < index:
            faults.append(f"{name} stands before its parent {node.parent}")
        else:
            parent = plan.nodes[node.parent]
            if parent.stop != node.start or not np.isin(node.members, parent.members).all():
                faults.append(f"{name} does not continue its parent {node.parent}")
        if node.executor != EDGE and node.executor not in tasks.users[node.members]:
            faults.append(f"{name} is run by {node.executor}, who is not in it")
        held.setdefault(node.parent, []).append(node.members)
    for parent_index, parts in held.items():
        together = np.concatenate(parts)
        if len(np.unique(together)) != len(together):
            faults.append(f"a task is in two nodes below {parent_index}")
    if not faults:
        last = last_nodes(plan, len(tasks))
        stops = np.array([0, *(node.stop for node in plan.nodes)])
        wrong = np.flatnonzero(stops[last + 1] != plan.handoffs)
        faults += [
            f"task {tasks.ids[row]} hands off at {plan.handoffs[row]}, not after its node" for row in wrong
        ]
    return faults


def _damages(plan: Plan, tasks: Tasks, setting: Setting) -> list[str]:
    curve = setting.curve
    damage = np.zeros(len(tasks))
    faults = []
    # a parent stands before its children, so that a task's nodes come in the order of their steps
    for index, node in enumerate(plan.nodes):
        away = (
            np.linalg.norm(tasks.vectors[node.members] - node.conditioning, axis=1)
            + tasks.slack[node.members]
        )
        for rung, stop in enumerate(curve.ladder):
            if node.start < stop <= node.stop:
                damage[node.members] += curve.added(rung, away)
        for row in node.members[damage[node.members] > setting.tolerance + _ROUNDING]:
            faults.append(
                f"task {tasks.ids[row]} has damage {damage[row]:.4g} after node {index}, above {setting.tolerance:.4g}"
            )
    return faults
