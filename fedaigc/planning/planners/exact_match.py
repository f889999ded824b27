"""Exact match: tasks with equal vectors share all rungs, others none."""

from dataclasses import dataclass

import numpy as np

from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.groups import plan_of_groups
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True)
class ExactMatch:
    """Plans that share between equal tasks alone."""

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan."""
        _, groups = np.unique(tasks.vectors, axis=0, return_inverse=True)
        return plan_of_groups(groups.reshape(-1), tasks, setting)
