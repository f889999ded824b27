"""What a plan costs, against values that were derived by hand."""

import numpy as np
import pytest

from fedaigc.collaboration.planner import planned_evaluations
from fedaigc.errors import UserError
from fedaigc.planning.cost import count_packets, finish_seconds, plan_cost, weighted_cost
from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.setting import Link, Machine, Machines, Setting, Weights
from fedaigc.planning.tasks import Tasks
from tests.planning.cases import line_curve, on_a_line

EDGE = Machine("edge", 0.5, 10.0, batch=4, batch_s=0.8)
PHONE = Machine("phone", 2.0, 3.0, image_s=1.0, image_j=5.0)


def tree(executors: tuple[str | int, ...] = ("edge",) * 3) -> tuple[Tasks, Plan]:
    """Return four tasks in a root of 2 steps with two children of 2 steps, N = 6."""
    centre = np.zeros(1)
    parts = [(np.arange(4), 0, 2, None), (np.array([0, 1]), 2, 4, 0), (np.array([2, 3]), 2, 4, 0)]
    nodes = tuple(
        Node(members, start, stop, centre, parent, executor)
        for (members, start, stop, parent), executor in zip(parts, executors, strict=True)
    )
    return on_a_line(0, 0, 0, 0), Plan(nodes, np.full(4, 4))


def setting(executor: str = "edge") -> Setting:
    machines = Machines(EDGE, (PHONE,), Link(1000, 0.25, 0.1), executor)  # type: ignore[arg-type]
    return Setting(line_curve(), 1.0, machines)


def test_a_tree_on_the_edge_server() -> None:
    tasks, plan = tree()
    cost = plan_cost(plan, tasks, setting())
    assert (cost.evaluations, cost.alone) == (2 + 2 + 2 + 4 * 2, 24)
    assert (cost.edge_steps, cost.helper_steps, cost.own_steps) == (6, 0, 8)
    assert (cost.packets, cost.bits) == (4, 4000)
    assert cost.joules == pytest.approx(6 * 10 + 8 * 3 + 4 * 5 + 4 * 0.1)
    # two steps of one sample, two steps of a batch of two, the packet, two own steps, the image
    seconds = 2 * 0.5 + 2 * 0.6 + 0.25 + 2 * 2 + 1
    assert finish_seconds(plan, tasks, setting()) == pytest.approx(np.full(4, seconds))
    assert cost.mean_seconds == cost.last_seconds == pytest.approx(seconds)
    assert cost.saved == pytest.approx(10 / 24)


def test_a_tree_on_helpers() -> None:
    tasks, plan = tree((0, 0, 2))
    # to tasks 1 and 3 at the end, and to helper 2 of the second child
    assert count_packets(plan, tasks) == 3
    cost = plan_cost(plan, tasks, setting("member"))
    assert (cost.edge_steps, cost.helper_steps) == (0, 6)
    assert cost.joules == pytest.approx((6 + 8) * 3 + 4 * 5 + 3 * 0.1)
    first = 4 * 2.0
    second = 2 * 2.0 + 0.25 + 2 * 2.0
    expected = [first + 5, first + 0.25 + 5, second + 5, second + 0.25 + 5]
    assert finish_seconds(plan, tasks, setting("member")) == pytest.approx(np.array(expected))


def test_one_group_costs_what_the_formula_of_the_paper_says() -> None:
    tasks = on_a_line(0, 0, 0)
    plan = Plan((Node(np.arange(3), 0, 4, np.zeros(1), None),), np.full(3, 4))
    assert plan_cost(plan, tasks, setting()).evaluations == planned_evaluations([4] * 3, 6)


def test_weights_count_what_they_name() -> None:
    tasks, plan = tree()
    here = setting()
    assert weighted_cost(plan, tasks, here) == plan_cost(plan, tasks, here).evaluations
    joules = weighted_cost(plan, tasks, here, Weights.joules(here.machines))
    # an image costs the same in every plan, so planners leave it out
    assert joules == pytest.approx(plan_cost(plan, tasks, here).joules - 4 * PHONE.image_j)


@pytest.mark.parametrize(("samples", "seconds"), [(0, 0), (1, 0.5), (2, 0.6), (4, 0.8), (5, 1.3), (9, 2.1)])
def test_a_batch_takes_what_was_measured(samples: int, seconds: float) -> None:
    assert EDGE.seconds(samples) == pytest.approx(seconds)


def test_impossible_machines_are_refused() -> None:
    with pytest.raises(UserError, match="a batch of 4"):
        Machine("edge", 1.0, 1.0, batch=4, batch_s=0.5)
    with pytest.raises(UserError, match="weights for 1 device classes"):
        Setting(line_curve(), 0.1, Machines(devices=(PHONE, PHONE)))
