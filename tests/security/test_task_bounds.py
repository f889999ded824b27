"""What a device may offer of its tasks, and what grouping them may cost."""

import json
from typing import Any

import pytest
from flwr.app import RecordDict

from fedaigc.deployment.agent.agent import Agent
from fedaigc.device.home.home import Home
from fedaigc.device.replies import Failure
from fedaigc.federation.config.run_config import FederationConfig, GenerationSection
from fedaigc.federation.preloaded import taxonomy
from fedaigc.federation.server import generation
from fedaigc.federation.wire import generation_messages, messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Role, public_nouns
from fedaigc.semantics.grouping import group
from fedaigc.semantics.policy import Policy
from tests.security.orders import IDS, changed, closed, open_signature, read_signatures, signatures


class TestTasks:
    def test_a_device_offers_a_bounded_number(self) -> None:
        with pytest.raises(ValueError, match="3000 tasks of a device"):
            read_signatures(signatures([], [], IDS), Policy.KIND)

    def test_an_honest_device_offers_no_more(self, agent: Agent, config: FederationConfig) -> None:
        home = Home.open(config.home(0))
        for number in range(1_100):
            task = {"task_id": f"{number:016x}", "number": 100 + number, "prompt": "x", "status": "waiting"}
            path = home.prompts / f"{100 + number:06d}-{number:016x}.json"
            path.write_text(json.dumps(task | {"disclosed": None}))
        reply = agent.answer(Ask.SIGNATURES, changed(config), messages.body())
        found, unreadable = generation_messages.read_signatures(reply)
        assert (len(found), unreadable) == (1_024, 0)

    @pytest.mark.parametrize("asked", [Policy.SILENT, Policy.GENERAL, Policy.KIND, Policy.EXACT])
    def test_more_than_was_asked_for_is_refused(self, asked: Policy) -> None:
        """A device could group others' prompts with its own text, and enter this text into the record."""
        order = (Policy.SILENT, Policy.GENERAL, Policy.KIND, Policy.EXACT, Policy.OPEN)
        told = open_signature(0) if asked is Policy.EXACT else closed(order[order.index(asked) + 1])
        with pytest.raises(ValueError, match="discloses more"):
            read_signatures(signatures(IDS[:1], [told.to_json()], []), asked)

    @pytest.mark.parametrize("asked", [Policy.GENERAL, Policy.KIND, Policy.EXACT])
    def test_an_owner_may_disclose_less(self, asked: Policy) -> None:
        told = closed(Policy.GENERAL)
        found, _ = read_signatures(signatures(IDS[:1], [told.to_json()], []), asked)
        assert found == {IDS[0]: told}

    @pytest.mark.parametrize(
        "task_id",
        [
            "x" * 100_000,
            "<b>markup</b>",
            "\x1b[31mred",
            "0123456789ABCDEF",
            "٣" * 16,
            "0" * 15,
            "0" * 16 + "\n",
            "",
        ],
    )
    def test_a_task_id_is_sixteen_hex_digits(self, task_id: str) -> None:
        with pytest.raises(ValueError, match="invalid task_id"):
            read_signatures(signatures([], [], [task_id]), Policy.KIND)

    def test_a_task_comes_once(self) -> None:
        with pytest.raises(ValueError, match="each task exactly once"):
            read_signatures(signatures([], [], [IDS[0]] * 2), Policy.KIND)

    def test_grouping_compares_a_bounded_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All 4.5 million pairs of 3,000 open signatures were compared, which took more than half a minute."""
        compared = 0

        def wu_palmer(self: Taxonomy, a: str, b: str, *, among: object = None) -> float:
            nonlocal compared
            compared += 1
            return 0.5

        monkeypatch.setattr(Taxonomy, "wu_palmer", wu_palmer)
        said = {task_id: open_signature(number) for number, task_id in enumerate(IDS)}
        members = [task_id for found in group(said, taxonomy()) for task_id in found.members]
        assert sorted(members) == IDS
        assert compared <= 256 * len(IDS)

    def test_closed_signatures_are_few(self) -> None:
        """Whatever the number of tasks, with all possible disclosures under three policies."""
        things, places = public_nouns(Role.OBJECT), public_nouns(Role.PLACE)
        assert len(things) * len(places) < 500

    def test_a_generation_takes_a_bounded_number_of_each_in_turn(self) -> None:
        replies: dict[int, RecordDict | Failure] = {
            client: signatures([], [], [f"{client:04x}{number:012x}" for number in range(1_024)])
            for client in range(9)
        }
        replies[9] = signatures([], [], ["0009" + "0" * 12])
        try:
            found = generation._signatures(replies, GenerationSection())
        except TypeError:
            older: Any = generation._signatures
            found = older(replies)
        assert len(found.owners) == 8_192
        # whoever has a single task is served beside those that have a thousand
        assert "0009" + "0" * 12 in found.owners
