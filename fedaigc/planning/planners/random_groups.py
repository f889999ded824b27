"""Random groups of one size; members leave when their tolerance says so."""

from dataclasses import dataclass

import numpy as np

from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.groups import plan_of_groups
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True)
class RandomGroups:
    """Plans with random groups.

    Attributes:
        size: Number of tasks of a group.
        seed: Seed of the draw.
    """

    size: int = 4
    seed: int = 0

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan."""
        drawn = np.random.default_rng(self.seed).permutation(len(tasks))
        return plan_of_groups(drawn // self.size, tasks, setting)
