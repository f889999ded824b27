"""No device runs steps for others beyond its battery."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.planning.batteries import device_joules, joules_left, within_batteries
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import plan_cost
from fedaigc.planning.deadlines import in_time, plan_in_time
from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.setting import EDGE, Machine, Machines, Setting, Weights
from fedaigc.planning.stream import Arrival, Stream
from fedaigc.planning.tasks import Tasks
from tests.planning.cases import line_curve, on_a_line, planned

# N = 6; a step is 2 J on a phone, which spends 12 + 1 J alone, and 5 J on a laptop
PHONE, LAPTOP = Machine("phone", 1.0, 2.0, image_j=1.0), Machine("laptop", 1.0, 5.0)
MACHINES = Machines(devices=(PHONE, LAPTOP), executor="member")
SETTING = Setting(line_curve(), 1.0, MACHINES, Weights.evaluations(2))


def shared(executor: int | str, count: int = 3) -> Plan:
    """Return tasks that share 4 of 6 steps."""
    return Plan((Node(np.arange(count), 0, 4, np.zeros(1), None, executor),), np.full(count, 4))


def of(*batteries: float) -> Tasks:
    return on_a_line(*[0] * len(batteries), batteries=np.array(batteries, dtype=float))


def moved_to(plan: Plan) -> list[int | str]:
    return [node.executor for node in plan.nodes]


def test_a_device_spends_its_own_steps_and_those_of_the_nodes_that_it_runs() -> None:
    tasks = on_a_line(0, 0, 0, classes=np.array([0, 1, 0]))
    assert device_joules(shared(0), tasks, SETTING) == {0: 2 * 2 + 1 + 4 * 2, 1: 2 * 5, 2: 2 * 2 + 1}
    assert device_joules(shared(1), tasks, SETTING) == {0: 5, 1: 10 + 4 * 5, 2: 5}
    assert (
        sum(device_joules(shared(1), tasks, SETTING).values()) == plan_cost(shared(1), tasks, SETTING).joules
    )
    assert sum(device_joules(shared(EDGE), tasks, SETTING).values()) == 20


def test_the_smallest_battery_of_a_user_counts() -> None:
    tasks = replace(of(20, 9, 50), users=np.array([4, 4, 5]))
    # 2 tasks of 5 J, and 8 J of help
    assert joules_left(shared(4), tasks, SETTING) == {4: 9 - 18, 5: 45}


def test_the_member_with_the_most_left_takes_over() -> None:
    assert moved_to(within_batteries(shared(0), of(13, 5, 5), SETTING)) == [0]
    assert moved_to(within_batteries(shared(0), of(12.9, 13, 20), SETTING)) == [2]
    assert moved_to(within_batteries(shared(0), of(0, 13, 12), SETTING)) == [1]


def test_nobody_shares_where_no_battery_lasts_and_the_edge_has_none() -> None:
    found = within_batteries(shared(0), of(12, 12, 12), SETTING)
    assert found.nodes == ()
    assert found.handoffs.tolist() == [0, 0, 0]
    assert within_batteries(shared(EDGE), of(0, 0, 0), SETTING).handoffs.tolist() == [4, 4, 4]


def test_only_the_branch_of_the_drained_helper_goes() -> None:
    centre = np.zeros(1)
    nodes = (
        Node(np.arange(4), 0, 2, centre, None, 0),
        Node(np.array([0, 1]), 2, 4, centre, 0, 0),
        Node(np.array([2, 3]), 2, 4, centre, 0, 2),
    )
    plan = Plan(nodes, np.full(4, 4))
    # user 2 has 5 J of its own and 4 of the branch; user 3 cannot take it
    found = within_batteries(plan, of(99, 0, 8, 8), SETTING)
    assert found.handoffs.tolist() == [4, 4, 0, 0]
    assert [node.members.tolist() for node in found.nodes] == [[0, 1], [0, 1]]


@given(planned(), st.integers(0, 100))
@hypothesis_settings(max_examples=20)
def test_with_deadlines_and_batteries_both_hold(drawn: tuple[Tasks, Setting], seed: int) -> None:
    tasks, setting = drawn
    random = np.random.default_rng(seed)
    tasks = replace(
        tasks,
        deadlines=random.uniform(5, 40, len(tasks)),
        batteries=random.uniform(0, 60, len(tasks)),
    )
    for plan in (
        plan_in_time(GreedyTree(), tasks, setting, 2.0),
        in_time(GreedyTree()(tasks, setting), tasks, setting, 2.0),
    ):
        assert check_plan(plan, tasks, setting, now=2.0) == []


def test_the_checker_names_a_drained_helper() -> None:
    assert check_plan(shared(0), of(12, 99, 99), SETTING, now=0.0) == ["user 0 runs nodes beyond the battery"]
    assert check_plan(shared(1), of(12, 99, 99), SETTING, now=0.0) == []


def test_a_stream_asks_nobody_beyond_the_battery() -> None:
    stream = Stream(SETTING, 5.0)
    for user, battery in enumerate((0.0, 3.0, 30.0)):
        stream.arrive(Arrival(str(user), np.zeros(1), 0.0, user, battery=battery))
    (left,) = stream.depart(5.0)
    assert moved_to(left.plan) == [2]
    with pytest.raises(UserError, match="negative slack or battery"):
        stream.arrive(Arrival("x", np.zeros(1), 6.0, battery=-1.0))


def test_a_battery_holds_at_least_nothing() -> None:
    with pytest.raises(UserError, match="joules of a battery"):
        of(-1.0)
