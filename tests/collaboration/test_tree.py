"""Trees of shared steps: what is left of a plan when tasks leave, and the lines that an executor runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.collaboration.tree import Branch, executor_steps, last_lines, lines_of, nodes_along, settled
from fedaigc.device.shared_steps import Line

ABOVE = Branch(("a", "b", "c", "d"), "fruit", 2, 4, 0, 5)
BELOW = Branch(("a", "b"), "apple", 4, 6, 1, 7)
BESIDE = Branch(("e", "f"), "bus", 2, 4, 0, 6)
TREE = (ABOVE, BESIDE, BELOW)
PLANNED = {"a": 6, "b": 6, "c": 4, "d": 4, "e": 4, "f": 4, "g": 2}


def test_a_tree_as_it_was_planned_stays() -> None:
    found = settled(TREE, PLANNED)
    assert found.handoffs == PLANNED
    assert found.branches == TREE
    lines = lines_of("thing", TREE, PLANNED)
    assert lines == [
        Line("thing", 0, (2,)),
        Line("fruit", 2, (4,), 0),
        Line("bus", 2, (4,), 0),
        Line("apple", 4, (6,), 1),
    ]
    assert executor_steps(lines) == 2 + 2 + 2 + 2
    assert last_lines(tuple(PLANNED), TREE)["a"] == 3


@pytest.mark.parametrize(
    ("taken", "handoffs", "left"),
    [
        # one of two leaves a branch: the other has nobody to share with, and leaves where the branch began
        ({"b": 4}, {"a": 4, "b": 4}, (ABOVE, BESIDE)),
        ({"f": 0}, {"e": 2, "f": 0}, ("fruit", "apple")),
        # three leave the branch above: the fourth does not go on alone, neither there nor below
        ({"b": 2, "c": 2, "d": 2}, {"a": 2, "b": 2}, (BESIDE,)),
        # all but one run alone
        (dict.fromkeys("abcdef", 0), dict.fromkeys("abcdefg", 0), ()),
    ],
)
def test_no_machine_runs_steps_for_one_task(
    taken: dict[str, int], handoffs: dict[str, int], left: tuple[object, ...]
) -> None:
    found = settled(TREE, PLANNED | taken)
    assert {task: found.handoffs[task] for task in handoffs} == handoffs
    assert [each.prompt for each in found.branches] == [
        each if isinstance(each, str) else each.prompt  # type: ignore[attr-defined]
        for each in left
    ]


def test_on_a_line_the_last_task_leaves_with_the_one_before_it() -> None:
    found = settled((), {"a": 3, "b": 5, "c": 9})
    assert found.handoffs == {"a": 3, "b": 5, "c": 5}


@given(st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from((0, 1, 2, 4, 6)), min_size=7, max_size=7))
def test_whoever_leaves_early_nobody_takes_more_and_every_step_is_shared(taken: dict[str, int]) -> None:
    taken = {task: min(step, PLANNED[task]) for task, step in taken.items()}
    found = settled(TREE, taken)
    assert all(found.handoffs[task] <= taken[task] for task in taken)
    assert settled(found.branches, found.handoffs) == found
    staying = {task: step for task, step in found.handoffs.items() if step}
    if not staying:
        return
    lines = lines_of("thing", found.branches, staying)
    saved = sum(staying.values()) - executor_steps(lines)
    # each shared step is run once for two tasks and more
    assert saved >= executor_steps(lines)


def test_the_nodes_of_a_task_follow_its_branches() -> None:
    assert nodes_along("a", 0, TREE, (1, 2, 3, 4, 6)) == [0, 0, 5, 5, 7]
    assert nodes_along("g", 0, TREE, (1, 2)) == [0, 0]
