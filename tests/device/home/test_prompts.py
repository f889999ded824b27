"""The queue: ids reveal nothing about the prompt, invalid prompts are refused, and nothing is lost."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.device.replies import UnknownTask
from fedaigc.errors import UserError
from fedaigc.validation import checked_prompt


def test_tasks_keep_their_order_and_status_across_reopening(tmp_path: Path) -> None:
    queue = PromptQueue(Home.open(tmp_path))
    first, second = queue.add("an apple on a table"), queue.add("a  dog\n on a bed ")
    queue.finish(first)
    again = PromptQueue(Home.open(tmp_path))
    assert [task.prompt for task in again.all()] == ["an apple on a table", "a dog on a bed"]
    assert [task.task_id for task in again.waiting()] == [second]
    assert again.get(first).status is TaskStatus.FINISHED


def test_ids_depend_on_seed_and_number_but_never_on_the_text(tmp_path: Path) -> None:
    one, two, other = (
        PromptQueue(Home.open(tmp_path / name, seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    ids = [one.add("an apple on a table"), one.add("a dog on a bed")]
    assert [two.add("a cactus near a river"), two.add("x" * 900)] == ids
    assert other.add("an apple on a table") not in ids
    assert len(set(ids)) == 2


@pytest.mark.parametrize("text", ["", " \n\t ", "a" * 1001, " " * 10_000, "a" * 10_000, "a \ud83d"])
def test_empty_overlong_and_broken_prompts_are_refused(tmp_path: Path, text: str) -> None:
    queue = PromptQueue(Home.open(tmp_path))
    with pytest.raises(UserError):
        queue.add(text)
    assert queue.all() == []


@settings(max_examples=50)
@given(st.text(max_size=1000))
def test_a_checked_prompt_has_single_spaces_and_is_stable(text: str) -> None:
    try:
        prompt = checked_prompt(text)
    except UserError:
        assert not text.strip()
        return
    assert prompt
    assert prompt == " ".join(prompt.split()) == checked_prompt(prompt)


@pytest.mark.parametrize("task_id", ["*", "../../etc/passwd", "0" * 16, "", "[0-9]" * 3])
def test_an_id_from_outside_cannot_name_another_file(tmp_path: Path, task_id: str) -> None:
    queue = PromptQueue(Home.open(tmp_path))
    queue.add("an apple on a table")
    with pytest.raises(UnknownTask):
        queue.get(task_id)


def test_writers_at_the_same_time_lose_no_prompt(tmp_path: Path) -> None:
    Home.open(tmp_path)

    def add_ten(name: int) -> None:
        queue = PromptQueue(Home.open(tmp_path))
        for number in range(10):
            queue.add(f"an apple on a table, {name} {number}")

    threads = [threading.Thread(target=add_ten, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tasks = PromptQueue(Home.open(tmp_path)).all()
    assert len({task.prompt for task in tasks}) == len({task.task_id for task in tasks}) == 40
    assert [task.number for task in tasks] == list(range(40))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"task_id": "0", "number": 0, "prompt": "x", "status": "lost", "disclosed": null}',
        b'{"task_id": "0", "number": 0, "prompt": "x", "status": "waiting", "disclosed": null}',
        b'{"task_id": "0123456789abcdef", "number": 1, "prompt": 5, "status": "waiting", "disclosed": null}',
    ],
)
def test_a_damaged_file_costs_the_other_tasks_nothing(tmp_path: Path, content: bytes) -> None:
    queue = PromptQueue(Home.open(tmp_path))
    first = queue.add("an apple on a table")
    damaged = tmp_path / "prompts" / "000001-0123456789abcdef.json"
    damaged.write_bytes(content)
    third = queue.add("a dog on a bed")
    tasks, files = queue.readable()
    assert [task.task_id for task in tasks] == [first, third]
    assert files == [damaged]
    assert queue.waiting() == tasks
