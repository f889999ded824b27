"""The checker finds what is wrong with a plan."""

from dataclasses import replace

import numpy as np
import pytest

from fedaigc.planning.check import check_plan
from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.setting import Setting
from tests.planning.cases import line_curve, on_a_line
from tests.planning.test_cost import tree

SETTING = Setting(line_curve(), 0.1)


def changed(index: int, **values: object) -> Plan:
    _, plan = tree()
    nodes = list(plan.nodes)
    nodes[index] = replace(nodes[index], **values)  # type: ignore[arg-type]
    return Plan(tuple(nodes), plan.handoffs)


def test_a_sound_plan_has_no_faults() -> None:
    tasks, plan = tree()
    assert check_plan(plan, tasks, SETTING) == []


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (changed(1, members=np.array([0, 2])), "in two nodes below 0"),
        (changed(1, members=np.array([0])), "expected two and more"),
        (changed(1, start=3), "does not continue its parent"),
        (changed(0, members=np.array([0, 1, 2])), "does not continue its parent"),
        (changed(1, stop=5), "the ladder is"),
        (changed(1, executor=3), "who is not in it"),
        (changed(1, parent=2), "stands before its parent"),
        (changed(0, start=1), "without a parent"),
        (Plan(tree()[1].nodes, np.array([4, 4, 4, 2])), "task 3 hands off at 2"),
        (Plan(tree()[1].nodes, np.array([4, 4, 4])), "hand-offs for 4 tasks"),
        # .02 of the root and .02 * 5 of the child
        (changed(2, conditioning=np.array([5.0])), "task 2 has damage 0.1"),
    ],
)
def test_faults_are_found(plan: Plan, fault: str) -> None:
    tasks, _ = tree()
    setting = replace(SETTING, tolerance=0.09)
    assert any(fault in found for found in check_plan(plan, tasks, setting))


def test_damage_adds_up_along_the_tree_and_slack_counts() -> None:
    node = Node(np.arange(2), 0, 2, np.array([1.0]), None)
    child = Node(np.arange(2), 2, 4, np.array([1.0]), 0)
    plan = Plan((node, child), np.full(2, 4))
    # D(4, 1) = .04, in two nodes
    assert not check_plan(plan, on_a_line(0, 2), replace(SETTING, tolerance=0.0401))
    assert check_plan(plan, on_a_line(0, 2), replace(SETTING, tolerance=0.0399))
    assert check_plan(plan, on_a_line(0, 2, slack=np.full(2, 0.1)), replace(SETTING, tolerance=0.0401))
