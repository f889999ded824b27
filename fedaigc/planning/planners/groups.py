"""Plans from groups that do not change from rung to rung."""

import numpy as np
from jaxtyping import Int

from fedaigc.errors import UserError
from fedaigc.planning.plan import ALONE, Labels, Plan, left_in_time, plan_of
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

MOST_PAIRWISE = 20_000


def plan_of_groups(
    groups: Int[np.ndarray, " n"], tasks: Tasks, setting: Setting, rungs: int | None = None
) -> Plan:
    """Return the plan in which each group shares on its mean, and each member leaves when its tolerance says so.

    Args:
        groups: Number of the group of each task.
        tasks: The tasks.
        setting: The setting.
        rungs: Number of rungs that are shared at most. Default: all.
    """
    blocks = np.full((len(setting.curve.ladder), len(tasks)), ALONE)
    sizes = np.bincount(groups, minlength=1)
    blocks[:rungs, sizes[groups] > 1] = groups[sizes[groups] > 1]
    return plan_of(left_in_time(Labels(blocks), tasks, setting.curve, setting.tolerance), tasks, setting)


def check_pairwise(name: str, tasks: Tasks) -> None:
    """Check that the distances of all pairs fit into memory.

    Raises:
        UserError: If there are too many tasks.
    """
    if len(tasks) > MOST_PAIRWISE:
        raise UserError(
            f"{name} compares all pairs of {len(tasks)} tasks: expected at most {MOST_PAIRWISE}; use greedy_tree"
        )
