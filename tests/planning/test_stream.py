"""Tasks that arrive and leave: each once, in time, and never at a worse quality than was asked for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import finish_seconds, weighted_cost
from fedaigc.planning.planners.alone import Alone
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.setting import Link, Machine, Machines, Setting
from fedaigc.planning.stream import Arrival, Departure, Stream
from fedaigc.planning.tasks import Tasks
from tests.planning.cases import line_curve, planned


def arrivals(tasks: Tasks) -> list[Arrival]:
    """Return the tasks in the order of their times."""
    return [
        Arrival(
            tasks.ids[row],
            tasks.vectors[row],
            float(tasks.arrivals[row]),
            int(tasks.users[row]),
            float(tasks.deadlines[row]),
            int(tasks.classes[row]),
            float(tasks.slack[row]),
        )
        for row in np.argsort(tasks.arrivals)
    ]


def crowd(number: int, seed: int = 0) -> Tasks:
    random = np.random.default_rng(seed)
    prompts = random.normal(0, 1, (number // 2, 4))
    return Tasks.of(
        prompts[random.integers(len(prompts), size=number)], arrivals=np.sort(random.uniform(0, 50, number))
    )


@given(planned(most=30), st.sampled_from([3, 6]), st.integers(0, 100))
@hypothesis_settings(max_examples=20)
def test_each_task_departs_once_or_is_withdrawn(drawn: tuple[Tasks, Setting], cell: int, seed: int) -> None:
    tasks, setting = drawn
    random = np.random.default_rng(seed)
    tasks = replace(tasks, deadlines=random.uniform(5, 40, len(tasks)))
    stream = Stream(setting, 2.0, cell=cell, every=2)
    gone: list[Any] = []

    def leave(departures: list[Departure], now: float) -> None:
        for departure in departures:
            assert check_plan(departure.plan, departure.tasks, setting, now) == []
            gone.extend(departure.tasks.ids)

    for task in arrivals(tasks):
        leave(stream.depart(task.time), task.time)
        stream.arrive(task)
        assert stream.next_due <= task.time + 2
        waiting = stream.plan()
        assert check_plan(waiting.plan, waiting.tasks, setting) == []
        alone = weighted_cost(Alone()(waiting.tasks, setting), waiting.tasks, setting)
        assert weighted_cost(waiting.plan, waiting.tasks, setting) <= alone + 1e-9
        if random.random() < 0.3:
            leaving = str(random.choice(waiting.tasks.ids))
            stream.withdraw(leaving)
            gone.append(leaving)
    while len(stream):
        now = stream.next_due
        leave(stream.depart(now), now)
    assert sorted(gone) == sorted(tasks.ids)
    assert stream.next_due == np.inf


def test_the_plan_of_those_who_wait_is_near_the_plan_from_scratch() -> None:
    tasks, setting = crowd(300), Setting(line_curve((2, 3, 5), 7), 0.05)
    stream = Stream(setting, 1000.0, cell=24)
    for task in arrivals(tasks):
        stream.arrive(task)
    waiting = stream.plan()
    assert sorted(waiting.tasks.ids) == sorted(tasks.ids)
    cost, scratch = (
        weighted_cost(plan, waiting.tasks, setting)
        for plan in (waiting.plan, GreedyTree()(waiting.tasks, setting))
    )
    assert cost <= 1.12 * scratch
    # after all but a few have left, the others are planned as if they had come alone
    for task_id in tasks.ids[:-5]:
        stream.withdraw(task_id)
    assert len(stream) == 5
    left = stream.plan()
    assert check_plan(left.plan, left.tasks, setting) == []


def test_a_task_that_is_served_at_its_last_moment_is_not_made_late_by_rounding() -> None:
    # alone 6.6 s; 14.9 - 6.6 + 6.6 is rounded to more than 14.9, and with its helper it would take far longer
    phone = Machine("phone", 1.1, 1.0)
    setting = Setting(
        line_curve(), 1.0, Machines(devices=(phone,), link=Link(seconds=3.0), executor="member")
    )
    stream = Stream(setting, 100.0)
    for name, user in (("helper", 0), ("urgent", 1)):
        stream.arrive(Arrival(name, np.zeros(1), 1.0, user, 14.9 if user else np.inf))
    now = stream.next_due
    assert now + 6 * 1.1 > 14.9
    (left,) = stream.depart(now)
    urgent = left.tasks.ids.index("urgent")
    assert left.plan.handoffs[urgent] == 0
    assert check_plan(left.plan, left.tasks, setting, now) == []


def test_nobody_waits_longer_than_the_window_or_the_deadline_allows() -> None:
    machines = Machines(devices=(Machine("phone", 1.0, 1.0),))
    setting = Setting(line_curve(), 0.5, machines)
    stream = Stream(setting, 10.0)
    stream.arrive(Arrival("slow", np.zeros(1), 0.0))
    assert stream.next_due == 10.0
    # alone 6 s, so it has to begin at 3
    stream.arrive(Arrival("quick", np.zeros(1), 1.0, deadline=9.0))
    stream.arrive(Arrival("far", np.full(1, 99.0), 1.0))
    assert stream.next_due == 3.0
    assert stream.depart(2.9) == []
    (left,) = stream.depart(3.0)
    # its group leaves with it
    assert sorted(left.tasks.ids) == ["quick", "slow"]
    assert (3.0 + finish_seconds(left.plan, left.tasks, setting) <= left.tasks.deadlines).all()
    assert len(stream) == 1
    assert stream.next_due == 11.0


def test_an_id_may_come_again_and_old_times_do_not_count() -> None:
    stream = Stream(Setting(line_curve(), 0.5), 10.0)
    stream.arrive(Arrival("a", np.zeros(1), 0.0))
    with pytest.raises(UserError, match="waits already"):
        stream.arrive(Arrival("a", np.zeros(1), 1.0))
    stream.withdraw("a")
    stream.arrive(Arrival("a", np.zeros(1), 5.0))
    assert stream.next_due == 15.0
    with pytest.raises(UserError, match="does not wait"):
        stream.withdraw("b")
    with pytest.raises(UserError, match="expected \\(1,\\)"):
        stream.arrive(Arrival("c", np.zeros(2), 1.0))
    with pytest.raises(UserError, match="there are 1"):
        stream.arrive(Arrival("c", np.zeros(1), 1.0, kind=1))
    stream.withdraw("a")
    with pytest.raises(UserError, match="no task waits"):
        stream.plan()


def test_points_that_only_differ_in_slack_are_divided_too() -> None:
    stream = Stream(Setting(line_curve(), 0.5), 10.0, cell=4)
    for number in range(40):
        stream.arrive(Arrival(str(number), np.zeros(2), float(number), slack=number / 100))
    assert len(stream) == 40
    assert len(stream.plan().tasks) == 40
