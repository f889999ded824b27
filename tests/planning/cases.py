"""Curves and tasks for the tests of planners."""

from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.setting import Machine, Machines, Setting, Weights
from fedaigc.planning.tasks import Tasks


def line_curve(ladder: tuple[int, ...] = (2, 4), steps: int = 6, reach: float = 10.0) -> DamageCurve:
    """Return D(K, d) = K d / 100, up to a distance of `reach`."""
    knots = np.array([0.0, reach])
    return DamageCurve(steps, ladder, knots, np.array([k * knots / 100 for k in ladder]))


def on_a_line(*places: float, **columns: Any) -> Tasks:
    """Return tasks with vectors of one number."""
    return Tasks.of(np.array(places, dtype=float)[:, None], **columns)


@st.composite
def planned(draw: st.DrawFn, most: int = 14, rungs: int = 3) -> tuple[Tasks, Setting]:
    """Draw tasks, some of them equal, with a curve, a tolerance, machines and weights."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    number = draw(st.integers(0, most))
    prompts = random.normal(0, draw(st.sampled_from([0.5, 2.0])), (max(1, number - 2), 3))
    vectors = prompts[random.integers(len(prompts), size=number)]
    knots = np.unique([0.0, *random.uniform(0, 8, 4)])
    rises = random.uniform(0, 0.1, (rungs, len(knots)))
    rises[:, 0] = 0
    curve = DamageCurve(7, (2, 3, 5)[:rungs], knots, np.cumsum(np.cumsum(rises, axis=0), axis=1))
    devices = (Machine("phone", 2.0, 3.0, image_s=1.0), Machine("laptop", 1.0, 5.0))
    executor: Literal["edge", "member"] = draw(st.sampled_from(["edge", "member"]))
    machines = Machines(Machine("edge", 0.1, 4.0, batch=4, batch_s=0.2), devices, executor=executor)
    weights = draw(
        st.sampled_from([Weights.evaluations(2), Weights.joules(machines), Weights(7, (3, 5), 0.5)])
    )
    slack = random.choice([0.0, 0.1], number)
    tasks = Tasks.of(
        vectors,
        ids=[f"t{row}" for row in range(number)],
        users=random.integers(0, 6, number),
        classes=random.integers(0, 2, number),
        arrivals=random.uniform(0, 5, number),
        slack=slack,
    )
    return tasks, Setting(curve, draw(st.sampled_from([0.0, 0.1, 0.3])), machines, weights)
