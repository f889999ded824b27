"""Two levels: the method of `greedy_tree` with one hand-off for all, the best of the ladder."""

from dataclasses import dataclass, field, replace

import numpy as np

from fedaigc.planning.cost import weighted_cost
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.plan import ALONE, Labels, Plan, plan_of
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True)
class TwoLevels:
    """Plans with one hand-off.

    Attributes:
        method: How groups are made.
    """

    method: GreedyTree = field(default_factory=GreedyTree)

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the cheapest plan over the ladder."""
        curve = setting.curve
        plans = []
        for rung, handoff in enumerate(curve.ladder):
            one = DamageCurve(curve.steps, (handoff,), curve.knots, curve.upper[rung : rung + 1])
            found = self.method.labels(tasks, replace(setting, curve=one)).blocks[0]
            blocks = np.full((len(curve.ladder), len(tasks)), ALONE)
            blocks[: rung + 1] = found
            plans.append(plan_of(Labels(blocks), tasks, setting))
        return min(plans, key=lambda plan: weighted_cost(plan, tasks, setting))
