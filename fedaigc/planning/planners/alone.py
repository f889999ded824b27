"""No sharing: every task runs alone."""

from dataclasses import dataclass

import numpy as np

from fedaigc.planning.plan import Plan
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True)
class Alone:
    """Plans without nodes."""

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan."""
        return Plan((), np.zeros(len(tasks), int))
