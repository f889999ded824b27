"""Deadlines, around any planner: whoever would be late by sharing runs alone."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from fedaigc.planning.cost import finish_seconds
from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

_REPLANS = 3


def plan_in_time(planner: Planner, tasks: Tasks, setting: Setting, now: float) -> Plan:
    """Return a plan in which no task misses a deadline that it would meet alone.

    Tasks that would are planned alone, and the others anew. If that moves the delay to others several times, whole
    trees run alone instead.

    Args:
        planner: The planner.
        tasks: The tasks.
        setting: The setting.
        now: Time at which the plan starts.
    """
    none = Plan((), np.zeros(len(tasks), int))
    punctual = now + finish_seconds(none, tasks, setting) <= tasks.deadlines
    rows = np.arange(len(tasks))
    plan = none
    for _ in range(_REPLANS):
        plan = _spread(planner(tasks.take(rows), setting), rows, len(tasks))
        late = punctual & (now + finish_seconds(plan, tasks, setting) > tasks.deadlines)
        if not late.any():
            return plan
        rows = rows[~late[rows]]
    while late.any():
        plan = _without_trees(plan, late)
        late = punctual & (now + finish_seconds(plan, tasks, setting) > tasks.deadlines)
    return plan


def _spread(plan: Plan, rows: Int[np.ndarray, " m"], number: int) -> Plan:
    """Return a plan of the tasks `rows` as a plan of all `number` tasks."""
    handoffs = np.zeros(number, int)
    handoffs[rows] = plan.handoffs
    return Plan(tuple(replace(node, members=rows[node.members]) for node in plan.nodes), handoffs)


def _without_trees(plan: Plan, late: Bool[np.ndarray, " n"]) -> Plan:
    """Return the plan without the trees that hold one of the late tasks."""
    index: dict[int, int] = {}
    nodes = []
    handoffs = np.zeros_like(plan.handoffs)
    for old, node in enumerate(plan.nodes):
        if late[node.members].any() if node.parent is None else node.parent not in index:
            continue
        index[old] = len(nodes)
        nodes.append(replace(node, parent=None if node.parent is None else index[node.parent]))
        handoffs[node.members] = node.stop
    return Plan(tuple(nodes), handoffs)
