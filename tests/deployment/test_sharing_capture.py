"""All traffic of a run by the denoiser's distance is captured, decoded and searched for canaries.

Three devices as processes, with TLS, node keys and lists of keys that their owners trust. Three prompts on two devices
are equal, and share nearly all steps. The others are a group with a ladder of two hand-offs, on the mean of members'
text embeddings. One device fails at its offers, at a key and at the tags of an equality test, with errors that quote
prompts: so there are replies of every outcome.

Part of `make test-deployment`; with `-s` it prints the figures of `docs/deployment.md`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedaigc.collaboration.equality.blinded_keys import TAG_BYTES
from fedaigc.device.replies import Failure
from fedaigc.federation.output.records import read_record
from fedaigc.federation.wire.generation_messages import TWINS
from fedaigc.federation.wire.messages import BODY, Ask
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.offer import NO_NODE
from tests.small_run import generation_of
from tools.deployment.capture import (
    FIRST_RUNG,
    LAST_RUNG,
    MODIFIER,
    NUM_DEVICES,
    SUMMED,
    WORDS_OF_ANY_KIND,
    SharingCapture,
    capture_sharing,
    table,
)

pytestmark = pytest.mark.slow
TASKS = sum(map(len, WORDS_OF_ANY_KIND))
# what a device may answer, beside Flower's own fields: keys of the body by kind of reply
REPLIES = {
    Ask.HELLO: {"partition", "base", "num_examples"},
    Ask.INSTALL: {"version"},
    Ask.SIGNATURES: {"tasks", "signatures", "alone", "unreadable"},
    Ask.KEYS: {"key", "node_key", "signature", "padding"},
    Ask.MASKED: {"count"},
    Ask.BLIND: {"key", "padding"},
    Ask.EQUAL: {"tags", "padding"},
    Ask.TWINS: {"packet"},
    Ask.OFFER: {"handoff", "padding"},
    Ask.FINISH: {
        "shared_stage_steps",
        "personal_stage_steps",
        "denoiser_calls",
        "denoiser_samples",
        "padding",
    },
}
_FAILURES = (Failure.NOT_SUMMED, Failure.NOT_COMPARED, Failure.NOT_FINISHED)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: Any, small_model: Path) -> SharingCapture:
    found = capture_sharing(tmp_path_factory.mktemp("capture"), small_model)
    print("", *table(found.honest), sep="\n")
    return found


def replies(captured: SharingCapture, ask: Ask) -> list[Any]:
    """Return the contents of all replies of a kind, failures too."""
    return [t.content for t in captured.honest.traffic.told if t.up and t.kind.split()[0] == ask.value]


def atlas_of(captured: SharingCapture) -> Atlas:
    section = captured.config.generation.denoiser
    assert section is not None
    assert section.atlas is not None
    return Atlas.read(section.atlas)


def test_the_run_was_the_one_that_is_meant(captured: SharingCapture) -> None:
    record = read_record(captured.config.output)
    assert record.status == "finished"
    groups = generation_of(record).groups
    shared = {group.conditioning: group for group in groups if len(group.tasks) > 1}
    assert set(shared) == {"mean", "own"}
    mean, own = shared["mean"], shared["own"]
    assert mean.summed == len(SUMMED)
    # who fails at an offer runs alone
    assert sorted(task.client for task in mean.tasks) == [0, 1]
    assert {task.handoff_step for task in mean.tasks} == {FIRST_RUNG, LAST_RUNG}
    assert sorted(task.client for task in own.tasks) == [0, 0, 1]
    outcomes = Counter((task.client, task.outcome.value) for each in groups for task in each.tasks)
    assert outcomes == {(0, "shared"): 3, (1, "shared"): 2, (NUM_DEVICES - 1, "alone"): 2}
    errors = (captured.config.home(NUM_DEVICES - 1) / "errors.log").read_text()
    for told in ("cannot compare", "cannot sum", "cannot tell whether"):
        assert told in errors
    assert MODIFIER in errors


def test_all_that_was_captured_was_read(captured: SharingCapture) -> None:
    traffic = captured.honest.traffic
    assert traffic.unread == []
    assert captured.honest.rest == []
    kinds = Counter(map(str, traffic.told))
    for ask in REPLIES:
        number = kinds[f"reply {ask.value}"] + kinds[f"reply {ask.value} failure"]
        assert kinds[f"order {ask.value}"] == number > 0
    assert kinds["reply query.blind"] == TASKS
    assert kinds["reply query.equal failure"] == 1
    assert kinds["reply query.twins"] == 1
    assert kinds["reply query.keys failure"] == 1
    assert kinds["reply query.masked"] == len(SUMMED)
    assert kinds["reply query.offer failure"] == len(WORDS_OF_ANY_KIND[-1])


def test_nothing_private_crosses_or_is_kept_by_the_server(captured: SharingCapture) -> None:
    """No prompt or caption in any form, no pixel or latents of a picture, no path of an owner."""
    assert captured.honest.found == []
    assert captured.in_files == []


def test_a_reply_holds_what_is_on_the_closed_list_alone(captured: SharingCapture) -> None:
    assert {told.kind.split()[0] for told in captured.honest.traffic.told if told.up} == {
        ask.value for ask in REPLIES
    }
    for ask, keys in REPLIES.items():
        for content in replies(captured, ask):
            records = set(content) - {"read"}
            if "failure" in records:
                assert records == {"failure"}
                assert set(content["failure"]) == {"kind", "padding"}
                assert content["failure"]["kind"] in _FAILURES
                assert not any(content["failure"]["padding"])
                continue
            assert records == ({BODY, "arrays"} if ask is Ask.MASKED else {BODY})
            body = content[BODY]
            further = set(body) - keys
            assert set(body) >= keys
            # the versions of the software
            assert not further or ask is Ask.HELLO
            assert not any(body.get("padding", b""))
    atlas = atlas_of(captured)
    for content in replies(captured, Ask.SIGNATURES):
        assert content[BODY]["alone"] == []
        for text in content[BODY]["signatures"]:
            # all captions disclose the root, and so says every prompt
            assert json.loads(text) == {"atlas": atlas.hash, "node": 0, "highest": 0}
    answers = [content[BODY]["handoff"] for content in replies(captured, Ask.OFFER) if BODY in content]
    assert set(answers) == {FIRST_RUNG, LAST_RUNG}


def test_what_members_are_sent_is_public_or_about_the_mean(captured: SharingCapture) -> None:
    orders = [told.content for told in captured.honest.traffic.told if not told.up]
    offers = [content[BODY] for content in orders if "ladder" in content.get(BODY, ())]
    # to the failing device's last prompt too
    assert len(offers) == len(SUMMED) + 1
    assert {(offer["node"], tuple(offer["ladder"])) for offer in offers} == {
        (NO_NODE, (FIRST_RUNG, LAST_RUNG))
    }
    # the same vector for all: nothing of one member
    assert len({offer["vector"] for offer in offers}) == 1
    prompts = {content[BODY]["group_prompt"] for content in orders if "group_prompt" in content.get(BODY, ())}
    assert prompts <= set(atlas_of(captured).captions)


def test_of_an_equality_test_members_are_sent_keys_and_one_sealed_packet(captured: SharingCapture) -> None:
    orders = [told.content for told in captured.honest.traffic.told if not told.up]
    said = [content[BODY]["tags"] for content in replies(captured, Ask.EQUAL) if BODY in content]
    sent = b"\n".join(part for content in orders for part in bytes_in(content))
    for tags in said:
        assert len(tags) == (TASKS - 1) * TAG_BYTES
        for start in range(0, len(tags), TAG_BYTES):
            assert tags[start : start + TAG_BYTES] not in sent
    announced = {content[BODY]["key"] for content in replies(captured, Ask.BLIND)}
    assert len(announced) == TASKS
    tests = [told for told in captured.honest.traffic.told if str(told) == f"order {Ask.EQUAL.value}"]
    assert all(set(told.content[BODY]["keys"]) == announced for told in tests)
    (packet,) = {content[BODY]["packet"] for content in replies(captured, Ask.TWINS)}
    assert {content[BODY]["packet"] for content in orders if TWINS in content} == {packet}


def bytes_in(value: Any) -> Iterator[bytes]:
    """Yield all bytes in plain data."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from bytes_in(part)


def test_sizes_do_not_depend_on_prompt_rung_or_refusal(captured: SharingCapture) -> None:
    # a device's messages differ in size from another's by its number
    sizes: dict[tuple[str, int], set[int]] = defaultdict(set)
    for told in captured.honest.traffic.told:
        if told.up or told.kind == Ask.OFFER.value:
            sizes[f"{told.up} {told.kind.split()[0]}", told.node].add(told.num_bytes)
    for ask in (Ask.KEYS, Ask.OFFER, Ask.FINISH, Ask.MASKED, Ask.BLIND, Ask.EQUAL):
        of_devices = [found for (kind, _), found in sizes.items() if kind == f"True {ask.value}"]
        assert [len(found) for found in of_devices] == [1] * NUM_DEVICES, ask
    of_devices = [found for (kind, _), found in sizes.items() if kind == f"False {Ask.OFFER.value}"]
    assert [len(found) for found in of_devices] == [1] * NUM_DEVICES
