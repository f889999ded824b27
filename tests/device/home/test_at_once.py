"""Two processes at one home: what one of them writes is neither lost nor mixed with what the other one writes."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.device.home.versions import KEPT_SHARED_STATES, AdapterVersions
from fedaigc.device.replies import UnknownTask
from fedaigc.diffusion.adapters.stages import Adapter, SharedState
from fedaigc.errors import UserError

COUNT = 30


def adapter(value: float) -> Adapter:
    return Adapter({"layer": (torch.full((1, 2), value), torch.full((2, 1), value))}, 1, 1.0)


def add_prompts(root: Path) -> None:
    queue = PromptQueue(Home.open(root))
    for number in range(COUNT):
        queue.add(f"an apple on table {number}")


def attempt(root: Path) -> None:
    queue = PromptQueue(Home.open(root))
    for task in queue.all():
        try:
            queue.begin_attempt(task.task_id)
            (root / f"begun-{task.task_id}-{multiprocessing.current_process().name}").touch()
        except UnknownTask:
            continue


def finish(root: Path) -> None:
    queue = PromptQueue(Home.open(root))
    for task in queue.all():
        queue.finish(task.task_id)


def retry(root: Path) -> None:
    queue = PromptQueue(Home.open(root))
    for task in queue.all():
        try:
            queue.retry(task.task_id)
            (root / f"again-{task.task_id}").touch()
        except UserError:
            continue


def save_rounds(root: Path) -> None:
    versions = AdapterVersions(Home.open(root))
    for number in range(1, COUNT + 1):
        versions.save_round("run", number, adapter(number))
        assert versions.current_personal() is not None


def import_adapters(root: Path) -> None:
    versions = AdapterVersions(Home.open(root))
    for number in range(COUNT):
        versions.save_imported(adapter(100 + number))
        assert versions.current_personal() is not None


def receive(root: Path) -> None:
    versions = AdapterVersions(Home.open(root))
    for number in range(COUNT):
        shared = SharedState("", {}, 1, 1.0, {"extra.x": torch.full((2,), float(number))})
        # what was just written is never dropped by another process
        assert versions.save_shared(shared) == shared.hash()


def _run(work: Callable[[Path], None], root: Path, barrier: Barrier) -> None:
    torch.set_num_threads(1)
    barrier.wait()
    work(root)


def at_once(root: Path, *works: Callable[[Path], None]) -> None:
    """Run functions in processes of their own, which begin together."""
    context: Any = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(works))
    processes = [context.Process(target=_run, args=(work, root, barrier)) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(works)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Home.open(tmp_path / "home").root


def statuses(root: Path) -> Sequence[TaskStatus]:
    return [task.status for task in PromptQueue(Home.open(root)).all()]


def test_prompts_that_two_processes_queue_are_all_there(root: Path) -> None:
    at_once(root, add_prompts, add_prompts)
    tasks = PromptQueue(Home.open(root)).all()
    assert sorted(task.prompt for task in tasks) == sorted(
        f"an apple on table {number}" for number in range(COUNT) for _ in range(2)
    )
    assert len({task.task_id for task in tasks}) == len({task.number for task in tasks}) == 2 * COUNT


def test_no_attempt_of_two_processes_is_uncounted(root: Path) -> None:
    """At f4520cc, both read the count before one of them wrote it."""
    add_prompts(root)
    at_once(root, attempt, attempt, attempt)
    assert len(list(root.glob("begun-*"))) == 2 * COUNT
    assert {task.attempts for task in PromptQueue(Home.open(root)).all()} == {2}


def test_a_picture_that_is_finished_is_not_queued_again(root: Path) -> None:
    """Of an attempt that its owner takes for lost: it may be queued before the picture is there, not after."""
    add_prompts(root)
    attempt(root)
    attempt(root)
    assert set(statuses(root)) == {TaskStatus.FAILED}
    at_once(root, finish, retry)
    assert set(statuses(root)) == {TaskStatus.FINISHED}


def test_rounds_and_imported_adapters_do_not_drop_each_other(root: Path) -> None:
    at_once(root, save_rounds, import_adapters)
    versions = AdapterVersions(Home.open(root))
    assert versions.last_round("run") == COUNT
    found = versions.current_personal()
    assert found is not None
    assert float(found.lora["layer"][0][0, 0]) in (COUNT, 99 + COUNT)


def test_shared_states_that_two_processes_receive_are_there(root: Path) -> None:
    at_once(root, receive, receive)
    kept = list((root / "adapters" / "shared").glob("*.safetensors"))
    assert len(kept) == KEPT_SHARED_STATES
