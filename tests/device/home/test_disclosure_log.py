"""The owner sees the largest disclosure of a prompt ever made, whatever was asked later.

At b8a6c4d this failed: `note_disclosed` kept the latest one, so a server that asked under `exact` and then under
`silent` left "Nothing" behind.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import Signature, disclose

PROMPT = "a shiny apple on a table"


def queue_of(root: Path) -> PromptQueue:
    return PromptQueue(Home.open(root, 1))


def signature(policy: Policy, minimum: int = 3, prompt: str = PROMPT) -> Signature | None:
    taxonomy = Taxonomy.load()
    return disclose(parse(prompt, taxonomy), policy, taxonomy, minimum)


def lines(root: Path) -> list[dict[str, Any]]:
    path = root / "disclosures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def device_at(root: Path) -> Device:
    """A device that is only asked for signatures and needs no pipeline."""
    return Device(root, None, base_hash="", taxonomy=Taxonomy.load(), seed=1)  # type: ignore[arg-type]


def test_a_quieter_request_hides_nothing(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    task_id = device.add_prompt(PROMPT)
    device.signature(task_id, Policy.EXACT, min_public_prompts=1)
    device.signature(task_id, Policy.KIND)
    device.signature(task_id, Policy.SILENT)
    told = str(device.prompts.get(task_id).disclosed)
    assert '"policy":"exact"' in told
    assert '"policy":"kind"' not in told
    # also for who opens the home anew, and on the command line
    assert str(queue_of(tmp_path).get(task_id).disclosed) == told
    shown = CliRunner().invoke(app, ["device", "queue", str(tmp_path)]).output
    assert "disclosed “" in shown
    assert "{" not in shown


def test_the_log_says_when_and_under_which_policy_and_only_what_is_new(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    task_id = device.add_prompt(PROMPT)
    asked = [
        Policy.SILENT,
        Policy.GENERAL,
        Policy.GENERAL,
        Policy.KIND,
        Policy.GENERAL,
        Policy.OPEN,
        Policy.EXACT,
    ]
    for policy in asked:
        device.signature(task_id, policy)
    entries = lines(tmp_path)
    assert [entry["policy"] for entry in entries] == ["general", "kind", "open"]
    assert {entry["task_id"] for entry in entries} == {task_id}
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert json.loads(entries[-1]["signature"])["prompt"] == PROMPT
    shown = CliRunner().invoke(app, ["device", "disclosures", str(tmp_path)]).output
    listed = shown.split("\n\n")[0].splitlines()
    assert [line.split("  ")[2].strip() for line in listed] == ["general", "kind", "open"]
    assert stat.S_IMODE((tmp_path / "disclosures.jsonl").stat().st_mode) == 0o600


QUESTIONS = st.lists(st.tuples(st.sampled_from(Policy), st.integers(1, 30)), max_size=30)


@settings(deadline=None, max_examples=50)
@given(QUESTIONS, st.sampled_from([PROMPT, "a bird on a sofa", "a poodle near a lake"]))
def test_every_signature_that_was_sent_is_covered_and_the_log_stays_small(
    tmp_path_factory: pytest.TempPathFactory, questions: list[tuple[Policy, int]], prompt: str
) -> None:
    from fedaigc.semantics.signature import says_all_of

    root = tmp_path_factory.mktemp("home")
    queue = queue_of(root)
    task_id = queue.add(prompt)
    sent = [signature(policy, minimum, prompt) for policy, minimum in questions]
    for told in sent:
        queue.note_disclosed(task_id, told)
    most = [Signature.from_json(text) for text in queue_of(root).get(task_id).disclosed]
    assert bool(most) == any(told is not None for told in sent)
    for told in sent:
        assert told is None or any(says_all_of(one, told, Taxonomy.load()) for one in most)
    # and none is shown that another one says all of, or that was never sent
    for one in most:
        assert one in sent
        assert not any(says_all_of(other, one, Taxonomy.load()) for other in most if other != one)
    assert len(lines(root)) <= 20


def test_two_that_cannot_be_compared_are_both_kept(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    task_id = queue.add(PROMPT)
    thing, general = signature(Policy.KIND, 6), signature(Policy.GENERAL)
    assert thing is not None
    assert general is not None
    for told in (general, thing, general):
        queue.note_disclosed(task_id, told)
    assert queue.get(task_id).disclosed == (general.to_json(), thing.to_json())
    queue.note_disclosed(task_id, signature(Policy.KIND))
    (most,) = queue.get(task_id).disclosed
    assert json.loads(most)["policy"] == "kind"


def test_it_is_on_disk_before_the_reply_and_a_full_disk_lets_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = device_at(tmp_path)
    task_id = device.add_prompt(PROMPT)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    device.signature(task_id, Policy.KIND)
    assert (tmp_path / "disclosures.jsonl").stat().st_ino in synced

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        device.signature(task_id, Policy.OPEN)


def test_a_line_that_was_broken_off_is_replaced_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    first, second = queue.add(PROMPT), queue.add("a dog near a river")
    queue.note_disclosed(first, signature(Policy.KIND))
    path = tmp_path / "disclosures.jsonl"
    with path.open("ab") as file:
        file.write(b'{"policy":"op')
    assert queue_of(tmp_path).disclosures.damaged() == 0
    queue_of(tmp_path).note_disclosed(second, signature(Policy.KIND, prompt="a dog near a river"))
    assert [entry["task_id"] for entry in lines(tmp_path)] == [first, second]
    path.write_bytes(
        b"\xff{\n"
        + b'{"time": 1e300, "task_id": "0", "policy": "kind", "signature": "x"}\n'
        + path.read_bytes()
    )
    again = queue_of(tmp_path)
    assert [bool(task.disclosed) for task in again.all()] == [True, True]
    assert again.disclosures.damaged() == 2
    assert (
        "disclosures.jsonl is damaged" in CliRunner().invoke(app, ["device", "queue", str(tmp_path)]).output
    )


def test_what_an_earlier_version_noted_still_counts(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    task_id = queue.add(PROMPT)
    (path,) = (tmp_path / "prompts").glob("*.json")
    exact = signature(Policy.EXACT, 1)
    assert exact is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"disclosed": exact.to_json()}))
    queue.note_disclosed(task_id, signature(Policy.KIND))
    assert queue.get(task_id).disclosed == (exact.to_json(),)
    assert lines(tmp_path) == []
    path.write_text(json.dumps(json.loads(path.read_text()) | {"disclosed": None}))
    assert queue.get(task_id).disclosed == ()


def test_writers_in_several_processes_lose_no_line(tmp_path: Path) -> None:
    one, two = queue_of(tmp_path), queue_of(tmp_path)
    ids = [one.add(f"{PROMPT} {number}") for number in range(10)]
    for number, task_id in enumerate(ids):
        (one, two)[number % 2].note_disclosed(task_id, signature(Policy.KIND))
    assert [entry["task_id"] for entry in lines(tmp_path)] == ids
    for queue in (one, two):
        assert all(queue.get(task_id).disclosed for task_id in ids)
