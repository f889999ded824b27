"""Deadlines, around any planner: whoever would be late by sharing runs alone."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from fedaigc.planning.cost import misses_deadline
from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.setting import EDGE, Setting
from fedaigc.planning.tasks import Tasks

_REPLANS = 3


def plan_in_time(planner: Planner, tasks: Tasks, setting: Setting, now: float) -> Plan:
    """Return a plan in which no task misses a deadline that it would meet alone.

    Tasks that would are planned alone, and the others anew. If that makes others late
    several times, late tasks leave their nodes instead.

    Args:
        planner: The planner.
        tasks: The tasks.
        setting: The setting.
        now: Time at which the plan starts.
    """
    rows = np.arange(len(tasks))
    punctual = _punctual(tasks, setting, now)
    for _ in range(_REPLANS):
        plan = _spread(planner(tasks.take(rows), setting), rows, len(tasks))
        late = punctual & misses_deadline(plan, tasks, setting, now)
        if not late.any():
            return plan
        rows = rows[~late[rows]]
    return in_time(plan, tasks, setting, now)


def in_time(plan: Plan, tasks: Tasks, setting: Setting, now: float) -> Plan:
    """Return a plan in which the tasks of users who would miss a deadline by sharing run alone."""
    punctual = _punctual(tasks, setting, now)
    while True:
        late = punctual & misses_deadline(plan, tasks, setting, now)
        if not late.any():
            return plan
        # a device that helps others finishes its own tasks after that: then none of its tasks share
        plan = without_tasks(plan, np.isin(tasks.users, tasks.users[late]), tasks)


def _punctual(tasks: Tasks, setting: Setting, now: float) -> Bool[np.ndarray, " n"]:
    """Return which tasks meet their deadline if all run alone."""
    alone = Plan((), np.zeros(len(tasks), int))
    return ~misses_deadline(alone, tasks, setting, now)


def _spread(plan: Plan, rows: Int[np.ndarray, " m"], number: int) -> Plan:
    """Return a plan of the tasks `rows` as a plan of all `number` tasks."""
    handoffs = np.zeros(number, int)
    handoffs[rows] = plan.handoffs
    return Plan(tuple(replace(node, members=rows[node.members]) for node in plan.nodes), handoffs)


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
