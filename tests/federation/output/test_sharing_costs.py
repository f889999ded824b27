"""Where the steps and joules of a tree went, and its picture."""

from pathlib import Path

import pytest

from fedaigc.collaboration.results import GroupRecord, Outcome, TaskRecord
from fedaigc.collaboration.tree import Branch
from fedaigc.device.replies import Failure, FinishReport
from fedaigc.errors import UserError
from fedaigc.federation.output.records import GenerationRecord
from fedaigc.federation.output.sharing_costs import alone, spent
from fedaigc.federation.output.sharing_picture import MOST_ROWS, plot_sharing
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE

STEPS = 11


def task(number: int, handoff: int | None) -> TaskRecord:
    own = STEPS - (handoff or 0)
    return TaskRecord(
        task_id=f"{number:016x}",
        client=number,
        disclosed=None,
        outcome=Outcome.SHARED if handoff else Outcome.ALONE,
        report=FinishReport(0, own, own, 2 * own),
        failure=None,
        handoff_step=handoff,
        link=None,
    )


def group(tasks: list[TaskRecord], branches: tuple[Branch, ...] = (), **values: object) -> GroupRecord:
    handoffs = [each.handoff_step or 0 for each in tasks]
    return GroupRecord.model_validate(
        {
            "prompt": "food",
            "executor": "edge",
            "num_shared_steps": min(handoffs),
            "noise_seed": 0,
            "evaluations": 0,
            "planned_evaluations": 0,
            "solo_evaluations": 0,
            "samples": 0,
            "packet_bytes": 0,
            "share_failure": None,
            "tasks": tuple(tasks),
            "branches": branches,
            **values,
        }
    )


def generation(*groups: GroupRecord) -> GenerationRecord:
    return GenerationRecord(
        policy="node",
        plan="p",
        num_steps=STEPS,
        boundary_step=9,
        refused={},
        unreadable={},
        seconds={},
        groups=groups,
    )


def ids(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number:016x}" for number in numbers)


TREE = group(
    [task(n, k) for n, k in enumerate((7, 7, 5, 3))],
    (Branch(ids(0, 1, 2), "a fruit", 3, 5), Branch(ids(0, 1), "an apple", 5, 7, 1)),
)


def test_steps_and_joules_of_a_tree_are_those_of_its_machines() -> None:
    helped = group([task(4, 3), task(5, 3)], executor=4)
    shared, helpers, own = spent([TREE, helped, group([task(6, None)])])
    assert (shared.name, shared.steps) == ("shared steps, edge server", 3 + 2 + 2)
    # each line begins with a text of its own
    assert shared.joules == pytest.approx(7 * EDGE_SERVER.step_j + 3 * EDGE_SERVER.text_j)
    assert (helpers.name, helpers.steps) == ("shared steps, helpers", 3)
    assert own.steps == 4 + 4 + 6 + 8 + 2 * 8 + 11
    assert own.joules == pytest.approx(own.steps * PHONE.step_j + 7 * PHONE.decode_j)
    assert alone([TREE, helped], STEPS).steps == 6 * STEPS


def test_an_executor_that_failed_took_no_steps() -> None:
    failed = group([task(0, None), task(1, None)], num_shared_steps=3, share_failure=Failure.NOT_FINITE)
    assert [part.name for part in spent([failed])] == ["own steps, devices"]


def test_the_picture_is_drawn_for_few_prompts_and_for_many(tmp_path: Path) -> None:
    plot_sharing(generation(TREE, group([task(9, None)])), tmp_path / "few.png")
    many = generation(*(group([task(n, None)]) for n in range(10, 15 + MOST_ROWS)))
    plot_sharing(many, tmp_path / "many.svg")
    text = (tmp_path / "many.svg").read_text(encoding="utf-8")
    assert (tmp_path / "few.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in text
    with pytest.raises(UserError, match=r"expected a file with the ending \.png"):
        plot_sharing(many, tmp_path / "tree.txt")
    with pytest.raises(UserError, match="the run drew nothing"):
        plot_sharing(generation(), tmp_path / "none.png")
