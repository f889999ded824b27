"""One hand-off K for all groups, which are tight enough for it: complete linkage, cut at the radius of K."""

from dataclasses import dataclass

import numpy as np

from fedaigc.errors import UserError
from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.groups import check_pairwise, plan_of_groups
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True)
class Fixed:
    """Plans with one hand-off.

    Attributes:
        handoff: K, one of the ladder. Default: the middle of it.
    """

    handoff: int | None = None

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan.

        Raises:
            UserError: If K is not in the ladder, or there are more tasks than pairs can be compared of.
        """
        from scipy.cluster.hierarchy import fcluster, linkage

        ladder = setting.curve.ladder
        chosen = ladder[len(ladder) // 2] if self.handoff is None else self.handoff
        if chosen not in ladder:
            raise UserError(f"the hand-off is {chosen}: expected one of {ladder}")
        check_pairwise("fixed", tasks)
        rung = ladder.index(chosen)
        radius = setting.curve.radius(rung, setting.tolerance)
        if len(tasks) < 2 or radius < 0:
            return plan_of_groups(np.arange(len(tasks)), tasks, setting)
        tree = linkage(np.column_stack([tasks.vectors, tasks.slack]), "complete")
        return plan_of_groups(fcluster(tree, radius, "distance") - 1, tasks, setting, rung + 1)
