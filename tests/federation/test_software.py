"""Versions: a closed list at hello, no reason for a refusal, and one sentence in the record for differences."""

from typing import Any

import pytest
from flwr.app import Message

from fedaigc.federation.runtime.launcher import simulate
from fedaigc.federation.software import SOFTWARE, difference, own_software, told_software
from fedaigc.federation.wire.messages import BODY, Ask
from tests.federation.test_run import Tampering, serve_with
from tests.small_run import MakeRun

QUICK: dict[str, Any] = {"rounds": {"count": 0}, "generation": {"enabled": False}}


def test_the_own_versions_are_taken_as_they_are_told() -> None:
    own = own_software()
    assert tuple(own) == SOFTWARE
    assert told_software({**own, "partition": 0, "base": "f" * 64}) == own


@pytest.mark.parametrize(
    "value", ["", "an apple on a table", "1" * 33, "1.0\n", "1.0 ", "ä1", b"1.0", 1.0, ["1.0"], None]
)
def test_what_is_no_version_is_not_kept(value: Any) -> None:
    assert told_software({**own_software(), "torch": value})["torch"] is None
    assert told_software({"torch": "2.6.0+cu124"}) == dict.fromkeys(SOFTWARE) | {"torch": "2.6.0+cu124"}


def test_a_difference_names_what_where_and_the_server_s() -> None:
    own: dict[str, str | None] = {**own_software(), "torch": "2.6.0", "flwr": "1.41.0"}
    assert difference({0: own, 1: own}, own) is None
    assert difference({}, own) is None
    others: dict[int, dict[str, str | None]] = {
        2: own | {"torch": "2.5.1"},
        0: own | {"torch": "2.5.1", "flwr": None},
        1: own,
    }
    assert difference(others, own) == (
        "clients compute with other versions: torch 2.5.1 on 0, 2 (server 2.6.0); "
        "flwr unknown on 0 (server 1.41.0)"
    )


def test_equal_versions_are_in_the_record_without_a_warning(make_run: MakeRun) -> None:
    record = simulate(make_run(**QUICK))
    assert record.client_versions == {client: own_software() for client in range(3)}
    assert record.version_warning is None


def test_other_versions_take_part_and_the_record_says_so_once(make_run: MakeRun) -> None:
    def older(kind: str, reply: Message) -> None:
        if kind == Ask.HELLO:
            reply.content.config_records[BODY]["torch"] = "2.5.1+cpu"

    config = make_run(**QUICK)
    record = serve_with(config, Tampering(1, older))
    assert record.status == "finished"
    assert record.clients == (0, 1, 2)
    assert record.refused == ()
    assert record.client_versions[1]["torch"] == "2.5.1+cpu"
    assert record.version_warning is not None
    assert "torch 2.5.1+cpu on 1 (server " in record.version_warning
    assert (config.output / "record.json").read_text().count("other versions") == 1


def test_text_in_the_place_of_a_version_never_comes_into_the_record(make_run: MakeRun) -> None:
    def telling(kind: str, reply: Message) -> None:
        if kind == Ask.HELLO:
            reply.content.config_records[BODY]["torch"] = "a crimson zeppelin"
            reply.content.config_records[BODY]["note"] = "crimson"
            del reply.content.config_records[BODY]["python"]

    record = serve_with(make_run(**QUICK), Tampering(0, telling))
    assert record.clients == (0, 1, 2)
    assert "crimson" not in record.model_dump_json()
    assert set(record.client_versions[0]) == set(SOFTWARE)
    assert (record.client_versions[0]["torch"], record.client_versions[0]["python"]) == (None, None)
