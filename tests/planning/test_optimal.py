"""The optimum equals what trying all trees finds."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from fedaigc.errors import UserError
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import weighted_cost
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.planners.optimal import Optimal
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks
from tests.planning.cases import line_curve, planned

Block = tuple[int, ...]


def partitions(members: Block) -> Iterator[list[Block]]:
    """Yield all divisions of some tasks into blocks."""
    if not members:
        yield []
        return
    for rest in partitions(members[1:]):
        yield [members[:1], *rest]
        for place, block in enumerate(rest):
            yield [*rest[:place], (members[0], *block), *rest[place + 1 :]]


def least(tasks: Tasks, setting: Setting) -> float:
    """Return the smallest cost over all trees, by trying them."""
    curve, weights = setting.curve, setting.weights
    own = np.asarray(weights.own_step)[tasks.classes]
    # no rung is shared after the ladder ends
    rest = float(own.sum()) * (curve.steps - curve.ladder[-1])

    def below(blocks: list[Block], rung: int, damage: np.ndarray) -> float:
        if rung == len(curve.ladder):
            return 0.0
        best = np.inf
        for finer in combined([list(partitions(block)) if len(block) > 1 else [[block]] for block in blocks]):
            now, cost = damage.copy(), 0.0
            for block in finer:
                rows = list(block)
                if len(rows) == 1:
                    cost += own[rows[0]] * curve.rungs[rung]
                    continue
                away = (
                    np.linalg.norm(tasks.vectors[rows] - tasks.vectors[rows].mean(0), axis=1)
                    + tasks.slack[rows]
                )
                now[rows] += curve.added(rung, away)
                cost += weights.shared_step * curve.rungs[rung] + (
                    weights.packet * len(rows) if rung == 0 else 0
                )
            if (now <= setting.tolerance + 1e-12).all():
                best = min(best, cost + below(finer, rung + 1, now))
        return float(best)

    return rest + below([tuple(range(len(tasks)))] if len(tasks) else [], 0, np.zeros(len(tasks)))


def combined(choices: list[list[list[Block]]]) -> Iterator[list[Block]]:
    """Yield all combinations of one division of each block."""
    if not choices:
        yield []
        return
    for first in choices[0]:
        for rest in combined(choices[1:]):
            yield first + rest


@given(planned(most=5, rungs=2))
@hypothesis_settings(max_examples=20)
def test_the_optimum_is_the_least_of_all_trees(drawn: tuple[Tasks, Setting]) -> None:
    tasks, setting = drawn
    solved = Optimal().solve(tasks, setting)
    assert check_plan(solved.plan, tasks, setting) == []
    cost = weighted_cost(solved.plan, tasks, setting)
    assert cost == pytest.approx(least(tasks, setting), abs=1e-6)
    alone = setting.curve.steps * float(np.asarray(setting.weights.own_step)[tasks.classes].sum())
    assert solved.saved == pytest.approx(alone - cost, abs=1e-6)
    assert solved.bound == pytest.approx(solved.saved, abs=1e-3)


@given(planned(most=7))
@hypothesis_settings(max_examples=10)
def test_no_fast_plan_is_cheaper(drawn: tuple[Tasks, Setting]) -> None:
    tasks, setting = drawn
    cost = weighted_cost(Optimal()(tasks, setting), tasks, setting)
    assert weighted_cost(GreedyTree()(tasks, setting), tasks, setting) >= cost - 1e-6


def test_too_many_tasks_that_could_share_are_refused() -> None:
    with pytest.raises(UserError, match="at most 12; use greedy_tree"):
        Optimal()(Tasks.of(np.zeros((13, 2))), Setting(line_curve(), 0.1))
    # components are solved one after the other
    apart = np.repeat(np.arange(8)[:, None] * 100.0, 2, axis=0)
    assert (Optimal()(Tasks.of(apart), Setting(line_curve(), 0.1)).handoffs == 4).all()


def test_the_fast_method_finds_steps_that_all_share_where_two_pairs_alone_could_share_longer() -> None:
    knots = np.array([0.0, 3.0, 6.0, 12.0])
    upper = np.array(
        [[0, 0.034, 0.06, 0.107], [0, 0.057, 0.101, 0.18], [0, 0.08, 0.142, 0.253], [0, 0.103, 0.183, 0.327]]
    )
    tasks = Tasks.of(np.array([[-5.0, 1, 3], [6, -4, 1], [-6, -1, -3], [5, 4, -1]]))
    setting = Setting(DamageCurve(11, (3, 5, 7, 9), knots, upper), 0.15)
    plan = GreedyTree()(tasks, setting)
    # two pairs to the end cost 9 + 9 + 4 * 2 = 26
    assert weighted_cost(plan, tasks, setting) == 25
    assert check_plan(plan, tasks, setting) == []
