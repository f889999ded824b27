"""k-means groups, which know nothing of the tolerance; members leave when theirs says so."""

from dataclasses import dataclass

import numpy as np

from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.groups import plan_of_groups
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@dataclass(frozen=True)
class KMeans:
    """Plans with k-means groups.

    Attributes:
        size: Mean number of tasks of a group.
        seed: Seed of the first centres.
    """

    size: int = 4
    seed: int = 0

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan."""
        import warnings

        from scipy.cluster.vq import kmeans2

        if len(tasks) < 2:
            return plan_of_groups(np.arange(len(tasks)), tasks, setting)
        number = max(1, len(tasks) // self.size)
        with warnings.catch_warnings():
            # an empty group is no harm
            warnings.simplefilter("ignore")
            _, groups = kmeans2(tasks.vectors, number, minit="++", rng=np.random.default_rng(self.seed))
        return plan_of_groups(groups.astype(int), tasks, setting)
