"""All traffic between devices and server is captured, decoded and searched for canaries.

The devices are processes with TLS and node keys. A recorder with the server's key sits between them and the door
(`recorder`). The canaries are a fictitious modifier in grouped prompts, a fictitious leaf below the apple in the
devices' taxonomy, patterns in their pictures, and the pictures that were drawn (`capture`). One device fails in a
round and in a task, with errors that quote prompts and captions.

Then this device leaks. Its agent is the real one except for its replies; socket, relay, SuperNode, keys and TLS are
unchanged. One reply to an order to train contains every form under a separate name, further ones among the weights
and one in the name of a metric. An error text is sent in a reply, and prompts are printed in its log.

The run takes a few minutes: `make test-deployment`. With `-s` it prints the figures of `docs/deployment.md`.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fedaigc.federation.output.records import read_record
from fedaigc.federation.wire.messages import Ask
from tests.small_run import generation_of
from tools.deployment.canary_device import FAILING_ROUND, FORMS
from tools.deployment.capture import (
    FRUIT,
    MAMMAL,
    MODIFIER,
    NUM_DEVICES,
    RIVER,
    TABLE,
    Captures,
    capture,
    table,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def captures(tmp_path_factory: Any, small_model: Path) -> Captures:
    found = capture(tmp_path_factory.mktemp("capture"), small_model)
    print("", *table(found.honest), sep="\n")
    return found


def test_the_run_was_the_one_that_is_meant(captures: Captures) -> None:
    record = read_record(captures.config.output)
    assert record.status == "finished"
    assert len(record.rounds) == 3
    groups = {group.prompt: [task.outcome for task in group.tasks] for group in generation_of(record).groups}
    assert groups.pop("") == ["failed"]
    assert groups == {"a fruit on a table": ["shared"] * 3, "a mammal near a river": ["shared"] * 3}


def test_all_that_was_captured_was_read(captures: Captures) -> None:
    traffic = captures.honest.traffic
    assert traffic.unread == []
    kinds = Counter(map(str, traffic.told))
    # offers, sums and equality tests are for runs in which prompts are compared by the denoiser
    for ask in set(Ask) - {Ask.OFFER, Ask.KEYS, Ask.MASKED, Ask.BLIND, Ask.EQUAL, Ask.TWINS}:
        assert kinds[f"order {ask.value}"] > 0
        assert (
            kinds[f"order {ask.value}"] == kinds[f"reply {ask.value}"] + kinds[f"reply {ask.value} failure"]
        )
    assert kinds["order train"] == 3 * NUM_DEVICES
    # an end of a connection has nothing after its last whole message
    assert captures.honest.rest == []


def test_no_canary_crosses(captures: Captures) -> None:
    assert captures.honest.found == []


def test_no_canary_is_in_the_servers_files_or_in_logs(captures: Captures) -> None:
    assert captures.in_files == []


def test_what_is_disclosed_is_found_by_the_same_search(captures: Captures) -> None:
    in_replies = {f.what for f in captures.honest.disclosed if f.path.startswith("reply query.signatures")}
    assert in_replies == {FRUIT, MAMMAL, TABLE, RIVER}
    in_orders = {f.what for f in captures.honest.disclosed if f.path.startswith("order query.share")}
    assert in_orders == {"a fruit on a table", "a mammal near a river"}
    on_server = {f.what for f in captures.disclosed_in_files if f.path.startswith("output/")}
    assert on_server >= {FRUIT, MAMMAL, TABLE, RIVER, *in_orders}
    # an answered message is deleted, and its pages are overwritten (`test_canaries` searches a database)
    assert not [f for f in captures.disclosed_in_files if f.path.startswith("server/superlink.db")]


def test_the_errors_that_quote_what_is_private_happened_and_stayed(captures: Captures) -> None:
    kept = (captures.config.home(NUM_DEVICES - 1) / "errors.log").read_text()
    assert "cannot learn" in kept
    assert "cannot draw" in kept
    assert MODIFIER in kept
    failures = [told for told in captures.honest.traffic.told if told.kind.endswith("failure")]
    assert {told.kind for told in failures} == {"train failure", "query.finish failure"}
    # why a picture failed is not told, and how long the reply is neither
    reasons = {(told.kind, told.content["failure"]["kind"]) for told in failures}
    assert reasons == {("train failure", "internal"), ("query.finish failure", "not_finished")}
    assert {told.kind: set(told.content["failure"]) for told in failures} == {
        "train failure": {"kind"},
        "query.finish failure": {"kind", "padding"},
    }
    refused = read_record(captures.config.output).rounds[FAILING_ROUND - 1].refused
    assert list(refused) == [NUM_DEVICES - 1]


def test_a_device_that_leaks_is_caught_in_each_form(captures: Captures) -> None:
    found = {(f.path, f.form) for f in captures.leaking.found}
    assert {form for form in FORMS if (f"reply train.body.leak {form}", form) in found} == set(FORMS)
    for form in ("embedding", "latents", "pixels", "token ids"):
        assert ("reply train.arrays.flat.data", form) in found
    assert ("reply train.metrics key", "plain") in found
    assert ("reply query.signatures failure.failure.kind", "plain") in found
    # and also by who does not decode
    raw = {form for path, form in found if path == "/v1/fleet/push-object body"}
    assert raw >= set(FORMS)
    assert {f.form for f in captures.in_log_of_leaking} >= {"plain", "token ids"}
