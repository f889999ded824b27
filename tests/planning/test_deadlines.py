"""Nobody is late because of sharing."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedaigc.planning.check import check_plan
from fedaigc.planning.deadlines import in_time, plan_in_time
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.setting import Machine, Machines, Setting
from fedaigc.planning.tasks import Tasks
from tests.planning.cases import line_curve, on_a_line, planned


@given(planned(), st.integers(0, 100))
@hypothesis_settings(max_examples=20)
def test_whoever_could_be_in_time_alone_is_in_time(drawn: tuple[Tasks, Setting], seed: int) -> None:
    tasks, setting = drawn
    due = np.random.default_rng(seed).uniform(5, 30, len(tasks))
    tasks = replace(tasks, deadlines=due)
    for plan in (
        plan_in_time(GreedyTree(), tasks, setting, 2.0),
        in_time(GreedyTree()(tasks, setting), tasks, setting, 2.0),
    ):
        assert check_plan(plan, tasks, setting, now=2.0) == []


def test_a_task_in_a_hurry_runs_alone_and_the_others_share() -> None:
    # alone 6 s; on the slow edge server 4 * 3 s, and 2 s of its own
    machines = Machines(Machine("edge", 3.0, 1.0), (Machine("phone", 1.0, 1.0),))
    setting = Setting(line_curve(), 1.0, machines)
    tasks = on_a_line(0, 0, 0, deadlines=np.array([7.0, 14.0, np.inf]))
    found = plan_in_time(GreedyTree(), tasks, setting, 0.0)
    assert found.handoffs.tolist() == [0, 4, 4]
    assert plan_in_time(GreedyTree(), tasks, setting, 0.5).handoffs.tolist() == [0, 0, 0]
