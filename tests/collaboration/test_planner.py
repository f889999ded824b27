"""Laws of the planner: groups partition the tasks, the order of arrival has no effect, and K is at most t*."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.collaboration.planner import Executor, plan_assignments, planned_evaluations
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from fedaigc.planning.setting import EDGE
from fedaigc.semantics.grouping import Group
from tests.plans import with_boundary


@pytest.fixture(scope="module")
def plan(pipe: Any, base_hash: str) -> DenoisingPlan:
    return build_plan(
        pipe, num_inference_steps=11, guidance_scale=5.0, height=64, width=64, base_hash=base_hash
    )


def _groups(sizes: list[int]) -> tuple[list[Group], dict[str, int]]:
    """Groups of these sizes; the tasks t000, t001, ... belong to clients 0 to 4 in turn."""
    groups: list[Group] = []
    owners: dict[str, int] = {}
    for size in sizes:
        members = tuple(f"t{len(owners) + i:03d}" for i in range(size))
        owners |= {task: int(task[1:]) % 5 for task in members}
        groups.append(Group(members=members, prompt="a fruit on a table", signature=None))
    return groups, owners


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.sampled_from(Executor),
)
def test_every_task_is_assigned_once_whatever_the_order_of_arrival(
    plan: DenoisingPlan, sizes: list[int], shuffler: Random, executor: Executor
) -> None:
    groups, owners = _groups(sizes)
    options: dict[str, Any] = {"num_shared_steps": 3, "seed": 9, "executor": executor}
    expected = plan_assignments(groups, owners, with_boundary(plan, 5), **options)
    mixed = [Group(tuple(shuffler.sample(g.members, len(g.members))), g.prompt, g.signature) for g in groups]
    shuffler.shuffle(mixed)
    arrived = list(owners.items())
    shuffler.shuffle(arrived)
    again = plan_assignments(mixed, dict(arrived), with_boundary(plan, 5), **options)
    assert [(a.executor, a.num_shared_steps, a.noise_seed) for a in again] == [
        (a.executor, a.num_shared_steps, a.noise_seed) for a in expected
    ]
    assert sorted(task for a in again for task in a.group.members) == sorted(owners)
    assert len({a.noise_seed for a in again}) == len(groups)
    for assignment in again:
        alone = len(assignment.group.members) == 1
        assert assignment.num_shared_steps == (0 if alone else 3)
        assert assignment.shares is not alone
        if alone or executor is Executor.EDGE:
            assert assignment.executor == EDGE
        else:
            assert assignment.executor in {owners[task] for task in assignment.group.members}


def test_members_take_turns_as_helpers(plan: DenoisingPlan) -> None:
    # 5 groups of 5 tasks, each with one task of every client: nobody helps twice
    groups, owners = _groups([5] * 5)
    assignments = plan_assignments(
        groups, owners, with_boundary(plan, 5), num_shared_steps=3, seed=0, executor=Executor.MEMBER
    )
    assert Counter(a.executor for a in assignments) == Counter(range(5))


@pytest.mark.parametrize("steps", [6, 12, -1])
def test_a_hand_off_past_the_boundary_or_outside_the_plan_is_refused(plan: DenoisingPlan, steps: int) -> None:
    groups, owners = _groups([2])
    with pytest.raises(UserError, match=str(steps)):
        plan_assignments(groups, owners, with_boundary(plan, 5), num_shared_steps=steps, seed=0)


def test_without_personal_adapters_any_hand_off_that_leaves_a_step_is_legal(plan: DenoisingPlan) -> None:
    groups, owners = _groups([2])
    for steps in range(plan.num_steps):
        (assignment,) = plan_assignments(groups, owners, plan, num_shared_steps=steps, seed=0)
        assert assignment.num_shared_steps == steps


def test_no_hand_off_leaves_all_prompts_with_one_picture(plan: DenoisingPlan) -> None:
    groups, owners = _groups([2])
    with pytest.raises(UserError, match=rf"{plan.num_steps} shared steps of {plan.num_steps}: .* at most"):
        plan_assignments(groups, owners, plan, num_shared_steps=plan.num_steps, seed=0)
    (assignment,) = plan_assignments(groups, owners, plan, num_shared_steps=3, seed=0)
    assert assignment.later_handoffs
    assert max(assignment.later_handoffs) == plan.num_steps - 1


def test_a_task_in_two_groups_or_without_owner_is_an_error(plan: DenoisingPlan) -> None:
    groups, owners = _groups([2])
    with pytest.raises(ValueError, match=r"in several groups \['t000', 't001'\]"):
        plan_assignments(groups * 2, owners, with_boundary(plan, 5), num_shared_steps=3, seed=0)
    with pytest.raises(ValueError, match="t001"):
        plan_assignments(groups, {"t000": 0}, with_boundary(plan, 5), num_shared_steps=3, seed=0)


def test_planned_evaluations_by_hand() -> None:
    # U = 8, N = 20, K = 10: 10 shared + 8 x 10 own = 90, against 8 x 20 = 160 solo
    assert planned_evaluations([10] * 8, 20) == 90
    assert planned_evaluations([0], 20) == 20
    # one left at once, one waited for two steps
    assert planned_evaluations([3, 5], 11) == 5 + 8 + 6
