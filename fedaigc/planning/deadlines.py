"""Deadlines and batteries, around any planner: whoever would be late by sharing runs alone."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from fedaigc.planning.batteries import within_batteries
from fedaigc.planning.cost import misses_deadline
from fedaigc.planning.plan import Plan, without_tasks
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

_REPLANS = 3


def plan_in_time(planner: Planner, tasks: Tasks, setting: Setting, now: float) -> Plan:
    """Return a plan in which no task misses a deadline that it would meet alone.

    Tasks that would are planned alone, and the others anew. If that makes others late several times, late tasks leave
    their nodes instead. Devices whose battery does not last help no others.

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
        plan = within_batteries(plan, tasks, setting)
        late = punctual & misses_deadline(plan, tasks, setting, now)
        if not late.any():
            return plan
        rows = rows[~late[rows]]
    return in_time(plan, tasks, setting, now)


def in_time(plan: Plan, tasks: Tasks, setting: Setting, now: float) -> Plan:
    """Return a plan in which the tasks of users who would miss a deadline by sharing run alone.

    Devices whose battery does not last help no others.
    """
    punctual = _punctual(tasks, setting, now)
    while True:
        plan = within_batteries(plan, tasks, setting)
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
