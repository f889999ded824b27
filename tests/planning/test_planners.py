"""Laws of all planners, and plans that were derived by hand."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from fedaigc.errors import UserError
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import plan_cost, weighted_cost
from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.alone import Alone
from fedaigc.planning.planners.exact_match import ExactMatch
from fedaigc.planning.planners.fixed import Fixed
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.planners.kmeans import KMeans
from fedaigc.planning.planners.optimal import Optimal
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.planners.registry import PLANNERS, planner
from fedaigc.planning.planners.similarity_steps import SimilaritySteps
from fedaigc.planning.planners.two_levels import TwoLevels
from fedaigc.planning.planners.ward import Ward
from fedaigc.planning.setting import Setting, Weights
from fedaigc.planning.tasks import Tasks
from tests.planning.cases import line_curve, on_a_line, planned

FAST = sorted(set(PLANNERS) - {"optimal"})
OWN = [GreedyTree, TwoLevels, lambda: GreedyTree(cell=4, tries=3)]


def sets(plan: Plan, tasks: Tasks) -> set[tuple[frozenset[str], int, int]]:
    """Return the nodes by the ids of their members."""
    return {(frozenset(tasks.ids[row] for row in node.members), node.start, node.stop) for node in plan.nodes}


@pytest.mark.parametrize("name", FAST)
@given(drawn=planned())
@hypothesis_settings(max_examples=10)
def test_every_task_is_in_one_place_and_within_its_tolerance(name: str, drawn: tuple[Tasks, Setting]) -> None:
    tasks, setting = drawn
    assert check_plan(planner(name)(tasks, setting), tasks, setting) == []


@pytest.mark.parametrize("make", OWN)
@given(drawn=planned())
@hypothesis_settings(max_examples=10)
def test_own_planners_never_cost_more_than_no_sharing(
    make: Callable[[], Planner], drawn: tuple[Tasks, Setting]
) -> None:
    tasks, setting = drawn
    alone = weighted_cost(Alone()(tasks, setting), tasks, setting)
    assert weighted_cost(make()(tasks, setting), tasks, setting) <= alone + 1e-9


@pytest.mark.parametrize("name", FAST)
@given(drawn=planned())
@hypothesis_settings(max_examples=10)
def test_no_planner_takes_more_evaluations_than_no_sharing(name: str, drawn: tuple[Tasks, Setting]) -> None:
    tasks, setting = drawn
    cost = plan_cost(planner(name)(tasks, setting), tasks, setting)
    assert cost.evaluations <= cost.alone


@pytest.mark.parametrize("make", OWN)
@given(drawn=planned(most=20))
@hypothesis_settings(max_examples=10)
def test_the_order_of_tasks_does_not_matter(
    make: Callable[[], Planner], drawn: tuple[Tasks, Setting]
) -> None:
    tasks, setting = drawn
    turned = tasks.take(np.random.default_rng(0).permutation(len(tasks)))
    assert sets(make()(tasks, setting), tasks) == sets(make()(turned, setting), turned)


def test_a_pair_near_enough_shares_and_the_third_runs_alone() -> None:
    # mean of 0 and 1: distance .5, D(4, .5) = .02; with 4 the farthest would have D(2, 7/3) > .04
    tasks, setting = on_a_line(0, 1, 4), Setting(line_curve(), 0.04)
    for found in (GreedyTree()(tasks, setting), Optimal()(tasks, setting), TwoLevels()(tasks, setting)):
        assert found.handoffs.tolist() == [4, 4, 0]
        assert plan_cost(found, tasks, setting).evaluations == 4 + 2 * 2 + 6


def test_a_tree_beats_two_levels_where_pairs_are_near_and_far_from_each_other() -> None:
    # root: distance 1.75, D(2) = .035; then each pair by itself: .02 * .25 = .005. All to 4: D(4, 1.75) = .07
    tasks, setting = on_a_line(0, 0.5, 3, 3.5), Setting(line_curve(), 0.045)
    for found in (GreedyTree()(tasks, setting), Optimal()(tasks, setting)):
        assert sets(found, tasks) == {
            (frozenset("0123"), 0, 2),
            (frozenset("01"), 2, 4),
            (frozenset("23"), 2, 4),
        }
        assert plan_cost(found, tasks, setting).evaluations == 2 + 2 * 2 + 4 * 2
    assert plan_cost(TwoLevels()(tasks, setting), tasks, setting).evaluations == 2 * 4 + 4 * 2


def test_equal_tasks_share_the_whole_ladder_at_any_tolerance() -> None:
    tasks, setting = on_a_line(1, 1, 1, 9), Setting(line_curve(), 0.0)
    for name in ("exact_match", "fixed", "ward", "two_levels", "greedy_tree"):
        found = PLANNERS[name]()(tasks, setting)
        assert plan_cost(found, tasks, setting).evaluations == 4 + 3 * 2 + 6, name


def test_sharing_that_costs_more_is_left_out() -> None:
    tasks = on_a_line(1, 1, 99)
    dear = Setting(line_curve(), 0.1, weights=Weights(2.5, (1.0,)))
    assert GreedyTree()(tasks, dear).nodes == ()
    packets = Setting(line_curve(), 0.1, weights=Weights(1.0, (1.0,), 3.0))
    assert GreedyTree()(tasks, packets).nodes == () == Optimal()(tasks, packets).nodes


def test_members_of_a_group_leave_when_their_tolerance_says_so() -> None:
    # distances to the mean, 2.5, are 2.5, 1.5, .5 and 4.5: D(2) = .05, .03, .01, .09 and D(4) = .1, .06, .02, .18
    found = KMeans(size=4)(on_a_line(0, 1, 2, 7), Setting(line_curve(), 0.06))
    assert found.handoffs.tolist() == [2, 4, 4, 0]


def test_ward_with_a_threshold_of_zero_is_exact_match() -> None:
    tasks, setting = on_a_line(1, 1, 2, 5), Setting(line_curve(), 1.0)
    assert sets(Ward(tau=0.0)(tasks, setting), tasks) == sets(ExactMatch()(tasks, setting), tasks)
    # 1 and 1 join at 0, 2 joins them at 1.15; phi(2) = .67 tau, phi(4) = .33 tau
    found = Ward(tau=2.0)(tasks, setting)
    assert found.handoffs.tolist() == [4, 4, 2, 0]


def test_classes_of_similarity_take_the_nearest_earlier_task() -> None:
    # of the six pairs, 0-1 is below both quantiles and skips 3 of 6 steps; no other pair is
    tasks = on_a_line(0, 0.1, 3, 9, arrivals=np.array([0.0, 1, 2, 3]))
    found = SimilaritySteps((0.2, 0.5), (0.35, 0.15))(tasks, Setting(line_curve(), 1.0))
    assert found.handoffs.tolist() == [2, 2, 0, 0]
    # the earlier one's own prompt is the conditioning
    assert found.nodes[0].conditioning.tolist() == [0.0]


def test_fixed_refuses_a_hand_off_that_is_not_offered() -> None:
    with pytest.raises(UserError, match=r"expected one of \(2, 4\)"):
        Fixed(3)(on_a_line(0, 1), Setting(line_curve(), 1.0))


def test_an_unknown_planner_is_refused() -> None:
    with pytest.raises(UserError, match="expected one of none, exact_match"):
        planner("best")


def test_planners_of_pairs_refuse_what_does_not_fit_into_memory() -> None:
    tasks = Tasks.of(np.zeros((20_001, 1)))
    for name in ("ward", "fixed", "nirvana"):
        with pytest.raises(UserError, match="use greedy_tree"):
            planner(name)(tasks, Setting(line_curve(), 1.0))


def test_thousands_of_tasks_take_the_same_path() -> None:
    random = np.random.default_rng(0)
    scenes = random.normal(0, 3, (40, 1, 8)) + random.normal(0, 0.3, (40, 25, 8))
    tasks = Tasks.of(scenes.reshape(-1, 8)[random.integers(1000, size=2000)])
    setting = Setting(line_curve((2, 3, 5), 7), 0.06)
    found = GreedyTree(tries=1)(tasks, setting)
    assert check_plan(found, tasks, setting) == []
    cost = weighted_cost(found, tasks, setting)
    assert cost < weighted_cost(ExactMatch()(tasks, setting), tasks, setting)
    assert cost <= 1.02 * weighted_cost(Ward()(tasks, setting), tasks, setting)


def test_planning_loads_neither_torch_nor_flower() -> None:
    code = (
        "import sys, fedaigc.planning.planners.registry, fedaigc.planning.stream, fedaigc.planning.check;"
        "assert not {'torch', 'flwr', 'diffusers', 'pandas'} & set(sys.modules)"
    )
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
