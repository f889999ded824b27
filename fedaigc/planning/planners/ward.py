"""Ward linkage with a threshold that falls with the step [Dec25].

Two tasks are in one block at step k if Ward's tree joins them below

    phi(k) = tau (1 - k / K)

K is the number of steps, N here. Blocks share on their mean. The rule knows no tolerance: members leave when theirs
says so. Ward's tree needs the distances of all pairs.

References:
    [Dec25] Decatur et al., ICCV 2025, arXiv:2508.21032.
"""

from dataclasses import dataclass

import numpy as np

from fedaigc.planning.cost import weighted_cost
from fedaigc.planning.plan import ALONE, Labels, Plan, left_in_time, plan_of
from fedaigc.planning.planners.groups import check_pairwise
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True)
class Ward:
    """Plans with Ward's tree.

    Attributes:
        tau: The threshold at the first step. None tries `tries` values and takes the cheapest plan.
        tries: Number of values: quantiles of the heights at which the tree joins.
    """

    tau: float | None = None
    tries: int = 20

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan.

        Raises:
            UserError: If there are more tasks than pairs can be compared of.
        """
        from scipy.cluster.hierarchy import fcluster, linkage

        check_pairwise("ward", tasks)
        rungs, steps = len(setting.curve.ladder), setting.curve.steps
        if len(tasks) < 2:
            return plan_of(Labels(np.full((rungs, len(tasks)), ALONE)), tasks, setting)
        tree = linkage(tasks.vectors, "ward")

        def plan(tau: float) -> Plan:
            blocks = np.full((rungs, len(tasks)), ALONE)
            for rung, handoff in enumerate(setting.curve.ladder):
                groups = fcluster(tree, tau * (1 - handoff / steps), "distance") - 1
                shared = np.bincount(groups)[groups] > 1
                blocks[rung, shared] = groups[shared]
            labels = left_in_time(Labels(blocks), tasks, setting.curve, setting.tolerance)
            return plan_of(labels, tasks, setting)

        if self.tau is not None:
            return plan(self.tau)
        # so that the last join of the tree can count at the first rung
        heights = tree[:, 2] / (1 - setting.curve.ladder[0] / steps) * (1 + 1e-9)
        tried = [plan(float(tau)) for tau in np.quantile(heights, np.linspace(0, 1, self.tries))]
        return min(tried, key=lambda found: weighted_cost(found, tasks, setting))
