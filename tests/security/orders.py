"""What a server or a device sends, honest and otherwise."""

import json
from typing import Any

from flwr.app import RecordDict

from fedaigc.deployment.agent.agent import Agent
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.preloaded import taxonomy
from fedaigc.federation.wire import generation_messages, messages
from fedaigc.federation.wire.messages import FAILURE, Ask
from fedaigc.semantics.concepts.vocabulary import Relation
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import OpenSignature, Signature


def changed(config: FederationConfig, **values: Any) -> str:
    """Return the configuration as a server sends it, with other values at dotted keys."""
    whole = json.loads(config.to_run_config()[RUN_CONFIG_KEY])
    for key, value in values.items():
        *path, last = key.split("__")
        inner = whole
        for name in path:
            inner = inner[name]
        inner[last] = value
    return json.dumps(whole)


def refusal(agent: Agent, text: str) -> object:
    reply = agent.answer(Ask.HELLO, text, RecordDict())
    return messages.values_of(reply, FAILURE)["kind"] if FAILURE in reply else None


def signatures(tasks: list[str], texts: list[str], alone: list[str], **more: Any) -> RecordDict:
    return messages.body(**{"tasks": tasks, "signatures": texts, "alone": alone, "unreadable": 0, **more})


def read_signatures(record: RecordDict, policy: Policy) -> Any:
    """Read signatures as the server does. b8a6c4d did not check the policy."""
    try:
        return generation_messages.read_signatures(record, policy)
    except TypeError:
        return generation_messages.read_signatures(record)


IDS = [f"{number:016x}" for number in range(3_000)]


def closed(policy: Policy) -> Signature:
    return Signature("n00001930", Relation.ON, "n00001930", policy)


def open_signature(number: int) -> OpenSignature:
    concepts = sorted(taxonomy().graph)[::7]
    thing, place = concepts[number % len(concepts)], concepts[number * 31 % len(concepts)]
    return OpenSignature(thing, Relation.ON, place, Policy.OPEN, f"prompt {number}")
