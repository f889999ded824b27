"""Batteries: no device runs steps for others beyond what its battery holds besides its own tasks.

Memory needs no such rule: a helper runs one sample at a time, as for its own picture, and the edge server at most a
batch.
"""

from dataclasses import replace

import numpy as np

from fedaigc.planning.cost import helper_class
from fedaigc.planning.plan import Plan, without_tasks
from fedaigc.planning.setting import EDGE, Setting
from fedaigc.planning.tasks import Tasks

_ROUNDING_J = 1e-6


def device_joules(plan: Plan, tasks: Tasks, setting: Setting) -> dict[int, float]:
    """Return the joules that each user's device spends on its own tasks and on nodes that it runs."""
    devices, own = setting.machines.devices, setting.curve.steps - plan.handoffs
    found = dict.fromkeys(tasks.users.tolist(), 0.0)
    for row, user in enumerate(tasks.users.tolist()):
        device = devices[int(tasks.classes[row])]
        found[user] += float(own[row]) * device.step_j + device.image_j
    for node in plan.nodes:
        if node.executor != EDGE:
            found[int(node.executor)] += (node.stop - node.start) * helper_class(node, tasks, setting)[1]
    return found


def joules_left(plan: Plan, tasks: Tasks, setting: Setting) -> dict[int, float]:
    """Return what is left in the battery of each user's device after a plan; negative: it does not last."""
    spent = device_joules(plan, tasks, setting)
    holds = dict.fromkeys(spent, np.inf)
    for user, joules in zip(tasks.users.tolist(), tasks.batteries.tolist(), strict=True):
        holds[user] = min(holds[user], joules)
    return {user: holds[user] - joules for user, joules in spent.items()}


def drained_helpers(plan: Plan, tasks: Tasks, setting: Setting) -> set[int]:
    """Return the users whose device runs nodes although its battery does not last."""
    left = joules_left(plan, tasks, setting)
    helpers = {int(node.executor) for node in plan.nodes if node.executor != EDGE}
    return {user for user in helpers if left[user] < -_ROUNDING_J}


def within_batteries(plan: Plan, tasks: Tasks, setting: Setting) -> Plan:
    """Return a plan without drained helpers.

    Their nodes go to the member with the most joules left, if its battery lasts for them. Otherwise the members of the
    node run alone.
    """
    while drained := drained_helpers(plan, tasks, setting):
        index = next(i for i, node in enumerate(plan.nodes) if node.executor in drained)
        node, left = plan.nodes[index], joules_left(plan, tasks, setting)

        def after(user: int, index: int = index, left: dict[int, float] = left, plan: Plan = plan) -> float:
            moved = replace(plan.nodes[index], executor=user)
            return left[user] - (moved.stop - moved.start) * helper_class(moved, tasks, setting)[1]

        others = set(tasks.users[node.members].tolist()) - drained
        best = max(sorted(others), key=after, default=None)
        if best is not None and after(best) >= -_ROUNDING_J:
            nodes = list(plan.nodes)
            nodes[index] = replace(node, executor=best)
            plan = replace(plan, nodes=tuple(nodes))
            continue
        leaving = np.zeros(len(tasks), bool)
        leaving[node.members] = True
        plan = without_tasks(plan, leaving, tasks)
    return plan
