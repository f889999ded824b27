"""A stream with withdrawals, failures and deadlines: every prompt is answered exactly once."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.planner.arrivals import Call
from experiments.planner.instances import damage_curve
from experiments.planner.service import (
    MACHINES,
    NOTICED,
    Ledger,
    answered,
    below,
    counted,
    sampled,
    serve,
)
from fedaigc.planning.cost import finish_seconds
from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.setting import Setting, Weights
from fedaigc.planning.stream import Departure
from fedaigc.planning.tasks import Tasks
from fedaigc.rng import numpy_rng

SETTING = Setting(damage_curve(), 0.1, MACHINES, Weights.evaluations(3))


def calls(number: int, seed: int) -> tuple[list[Call], dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    texts = [str(row) for row in range(40)]
    places = random.normal(0, 3, (40, 4))
    # ten prompts are far from all others
    places[30:] += 100 * np.arange(1, 11)[:, None]
    vectors = dict(zip(texts, places, strict=True))
    times = np.cumsum(random.exponential(0.3, number))
    return [
        Call(float(time), int(random.integers(30)), texts[min(39, int(random.zipf(1.3)))]) for time in times
    ], vectors


def tree() -> tuple[Plan, Tasks]:
    """Return a root of four tasks by user 0, with a branch of two by user 2."""
    vectors = np.zeros((4, 1))
    nodes = (
        Node(np.arange(4), 0, 3, vectors[0], None, 0),
        Node(np.array([2, 3]), 3, 5, vectors[0], 0, 2),
    )
    return Plan(nodes, np.array([3, 3, 5, 5])), Tasks.of(vectors)


def test_every_call_is_answered_or_withdrawn_once_and_nobody_is_late_by_sharing() -> None:
    asked, vectors = calls(300, 0)
    ledger, found = serve(asked, vectors, SETTING, 20.0, 0)
    told = counted(asked, ledger, found, SETTING)
    assert sorted([*ledger.answered, *ledger.withdrawn], key=int) == [str(row) for row in range(300)]
    ids = [task for each in found for task in each.departure.tasks.ids]
    assert len(ids) == len(set(ids)) == told["answered"]
    assert told["late though alone in time"] == 0
    # the stream has all that it is about
    assert (
        min(told[key] for key in ("withdrawn", "shared", "alone", "executor failed", "with a deadline")) > 0
    )
    assert told["shared"] + told["alone"] + told["executor failed"] == told["answered"]


def test_a_ledger_refuses_a_second_answer() -> None:
    ledger = Ledger()
    ledger.called("a")
    with pytest.raises(RuntimeError, match="called twice"):
        ledger.called("a")
    ledger.close("a", ledger.answered)
    with pytest.raises(RuntimeError, match="second time"):
        ledger.close("a", ledger.withdrawn)
    with pytest.raises(RuntimeError, match="called twice"):
        ledger.called("a")


def test_a_failure_reaches_what_follows_it_and_nothing_else() -> None:
    plan, _ = tree()
    assert below(plan, {0}).tolist() == [0, 1, 2, 3]
    assert below(plan, {2}).tolist() == [2, 3]
    assert below(plan, set()).tolist() == []


def test_whoever_begins_anew_takes_the_time_of_running_alone_after_the_failure() -> None:
    plan, tasks = tree()
    departure = Departure(tasks, plan)
    for seed in range(200):
        found = answered(departure, SETTING, 7.0, numpy_rng(seed, "service"))
        if found.anew.tolist() == [2, 3]:
            break
    alone = finish_seconds(Plan((), np.zeros(4, int)), tasks, SETTING)
    assert found.finished[2:].tolist() == (7.0 + NOTICED + alone[2:]).tolist()
    assert found.finished[:2].tolist() == (7.0 + finish_seconds(plan, tasks, SETTING)[:2]).tolist()


def test_a_failure_costs_the_steps_of_the_lost_nodes_and_all_steps_anew() -> None:
    plan, tasks = tree()
    departure = Departure(replace(tasks, ids=("0", "1", "2", "3")), plan)
    asked = [Call(0.0, row, "x") for row in range(4)]
    ledger = Ledger(answered=set("0123"))
    for seed in range(200):
        found = answered(departure, SETTING, 0.0, numpy_rng(seed, "service"))
        if found.anew.tolist() == [2, 3]:
            break
    # 3 and 2 shared steps, 8 each of two who left at 3, 11 each of those who began anew
    assert counted(asked, ledger, [found], SETTING)["steps saved"] == pytest.approx(1 - (5 + 16 + 22) / 44)


def test_a_sample_has_failures_trees_and_tasks_alone() -> None:
    asked, vectors = calls(300, 1)
    _, found = serve(asked, vectors, SETTING, 20.0, 1)
    chosen = sampled(found, 60)
    kinds = {(bool(len(each.anew)), bool(each.departure.plan.nodes)) for each in chosen}
    assert kinds == {(True, True), (False, True), (False, False)}
    ids = [task for each in chosen for task in each.departure.tasks.ids]
    assert len(ids) == len(set(ids)) >= 60
