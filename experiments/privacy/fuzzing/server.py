"""Fuzz a server with mutated replies of a device to each kind of message, alone and in whole runs."""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from flwr.app import Context, Message, RecordDict
from hypothesis import strategies as st

from experiments.privacy.fuzzing.device import Outcome
from experiments.privacy.fuzzing.mutations import MARK, broken_record
from experiments.privacy.fuzzing.prompt_messages import sharing_config
from fedaigc.collaboration.equality.blinded_keys import TAG_BYTES, BlindedKey, EqualityTest
from fedaigc.collaboration.equality.twin_packets import sealed_to_nobody
from fedaigc.collaboration.planner import Executor
from fedaigc.collaboration.sealing import packet_room
from fedaigc.collaboration.secure_sum import fixed_point
from fedaigc.collaboration.secure_sum.masks import Announced, SumKey
from fedaigc.device.replies import DeviceError, Failure, FinishReport, SharedSteps
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.diffusion.conditioning import prompt_conditioning
from fedaigc.diffusion.sampling.segment import latents_shape
from fedaigc.errors import UserError
from fedaigc.federation.client.client_app import app
from fedaigc.federation.client.handlers import refused
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import GenerationRecord
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server import generation
from fedaigc.federation.server.exchange import parsed
from fedaigc.federation.server.roster import open_roster
from fedaigc.federation.server.rounds import run_rounds
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.server.service import PromptService
from fedaigc.federation.server.sharing import equal_prompts, group_conditioning
from fedaigc.federation.wire import equality_messages, generation_messages, messages, sum_messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.read_update import RefusedUpdate, read_update
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Update

PROMPTS = ("an apple on a table", "a lemon on a table", "1girl, solo, masterpiece")
# about prompts by the denoiser's distance, without and with equality tests
SHARING_READERS = ("nodes", "taken", "key", "masked")
TWIN_READERS = ("blinded", "tags", "twin packet")
READERS = ("hello", "update", "signatures", "steps", "report", *SHARING_READERS, *TWIN_READERS)
_MAX_RECORD = 100_000


class ServerTarget:
    """A server's readers, rounds and generations, into which replies can be inserted.

    Args:
        config: A configuration of three clients, whose homes have pictures and a prompt each. The first two share steps
            on a member; all three share by the denoiser's distance, on a mean and with a ladder, or are told by
            equality tests that the first two have the same prompts.
    """

    def __init__(self, config: FederationConfig) -> None:
        settings = config.generation.model_copy(update={"executor": Executor.MEMBER})
        rounds = config.rounds.model_copy(update={"count": 1})
        self.config = config.model_copy(update={"generation": settings, "rounds": rounds, "num_clients": 2})
        config.output.mkdir(parents=True, exist_ok=True)
        self.testing = sharing_config(config.model_copy(update={"rounds": rounds}))
        self.sharing = _without_tests(self.testing)
        self.shared = initial_shared_state(self.config)
        self.plan = generation.plan_generation(self.shared, self.config)
        _, self.base_hash = base_model(config.model)
        self._runs = 0
        self._replies: dict[str, RecordDict] = {}
        section = self.sharing.generation.denoiser
        assert section is not None
        self._ladder = (self.sharing.generation.num_shared_steps, *section.ladder)
        pipe, _ = base_model(config.model)
        self._room = packet_room(math.prod(latents_shape(pipe, self.plan)))
        # the sum of what devices give without masks is the same as with them
        self._given = fixed_point.encode(fixed_point.flat(prompt_conditioning(pipe, PROMPTS[0])))
        self._of_prompts: dict[Ask, Callable[[], RecordDict]] = {
            Ask.KEYS: lambda: _padded(sum_messages.key_record(Announced(SumKey().public))),
            Ask.MASKED: lambda: sum_messages.masked_record(self._given),
            Ask.OFFER: lambda: _padded(generation_messages.taken_record(self._ladder[-1])),
        }
        self._members: dict[tuple[str, str], BlindedKey] = {}
        self._learn_replies()

    def honest(self, kind: str) -> RecordDict:
        """Return the reply of an honest device, of a kind of `READERS`."""
        return self._replies[kind]

    def read(self, kind: str, reply: RecordDict) -> Outcome:
        """Read a reply as the server does. Its readers may accept or refuse it; anything else is a failure."""
        began, outcome = time.process_time(), Outcome(kind, 0.0)
        try:
            told = self._read(kind, reply)
        except (RefusedUpdate, UserError) as error:
            told = str(error)
        except Exception as error:
            outcome.failures.append(f"{type(error).__name__} came out of reading a {kind}")
            told = None
        outcome.seconds = time.process_time() - began
        # weights and packets are not part of any record
        if not isinstance(told, Update | SharedSteps) and MARK in str(told):
            # quoted text must be truncated and escaped, without markup and control characters
            outcome.failures += _unsound(str(told))
        return outcome

    def run(self, kind: str, ask: Ask, reply: RecordDict) -> Outcome:
        """Execute a whole round or generation in which the first device's answer to `ask` is this reply."""
        began, outcome = time.process_time(), Outcome(kind, 0.0)
        records: list[dict[str, Any]] = []
        try:
            config = {"sharing": self.sharing, "equality": self.testing}.get(kind, self.config)
            roster = open_roster(
                self._grid({ask: reply}, config),
                num_clients=config.num_clients,
                base_hash=self.base_hash,
                folder=config.output,
            )
            if kind == "round":
                rule = load_strategy(self.config.rounds.strategy)
                rule.seed, rule.num_clients, rule.clients_per_round = 0, 2, 2
                run_rounds(roster, self.shared, rule, self.config, lambda done, _: records.append(vars(done)))
            else:
                served: list[GenerationRecord] = []
                PromptService(roster, config, served.append).serve(self.shared, None)
                records += [each.model_dump(mode="json") for each in served]
            records.append({"refused": [refusal.reason for refusal in roster.refused]})
            records.append({"software": roster.software})
        except UserError as error:
            records.append({"error": str(error)})
        except Exception as error:
            outcome.failures.append(f"{type(error).__name__} ended a {kind}")
        outcome.seconds = time.process_time() - began
        outcome.failures += _unsound(json.dumps(records))
        return outcome

    def _read(self, kind: str, reply: RecordDict) -> Any:
        if kind == "hello":
            roster = open_roster(
                self._grid({Ask.HELLO: reply}, self.config),
                num_clients=1,
                base_hash=self.base_hash,
                timeout_s=5.0,
            )
            return [roster.software, roster.refused]
        if kind == "update":
            return read_update(
                reply,
                0,
                Received(self.shared, 1),
                load_strategy(self.config.rounds.strategy),
                "float32",
                num_steps=self.config.local_steps(0),
            )
        policy = self.config.generation.policy
        readers: dict[str, Callable[[RecordDict], Any]] = {
            "signatures": lambda record: generation_messages.read_signatures(record, policy),
            "nodes": lambda record: generation_messages.read_signatures(record, policy, nodes=True),
            "steps": generation_messages.read_shared_steps,
            "report": generation_messages.read_report,
            "taken": lambda record: generation_messages.read_taken(record, self._ladder),
            "blinded": equal_prompts._read_key,
            "tags": partial(equality_messages.read_tags, count=self._num_tags),
            "twin packet": partial(equality_messages.read_twin_packet, size=self._packet_bytes),
        }
        if kind == "key":
            return group_conditioning._key(reply)
        if kind == "masked":
            return group_conditioning._vector(reply, len(self._given))
        return parsed(reply, readers[kind])

    def _grid(self, replaced: dict[Ask, RecordDict], config: FederationConfig) -> LocalGrid:
        """Return a grid of the configuration's devices, in which the first one's answers are replaced."""

        def answer(message: Message, context: Context) -> Message:
            ask = Ask(message.metadata.message_type)
            if ask in replaced and int(context.node_config["partition-id"]) == 0:
                return Message(replaced[ask], reply_to=message)
            if ask is Ask.FINISH:
                # the prompts stay in the queue: the drawing of members is fuzzed on the device's side
                return Message(self._replies["report"], reply_to=message)
            if ask in self._of_prompts:
                # a prompt is in one sum and answers two offers: a device would refuse the later runs
                return Message(self._of_prompts[ask](), reply_to=message)
            if ask in (Ask.BLIND, Ask.EQUAL, Ask.TWINS):
                # nor is it in more than two tests
                client = int(context.node_config["partition-id"])
                return Message(self._of_a_test(ask, message.content, client), reply_to=message)
            return app(message, context)

        self._runs += 1
        return LocalGrid(
            answer,
            num_clients=config.num_clients,
            run_config=config.to_run_config(),
            run_id=self._runs,
        )

    def _of_a_test(self, ask: Ask, content: RecordDict, client: int) -> RecordDict:
        """Return the answer of a device to a message of an equality test; the first two have the same prompt."""
        if ask is Ask.BLIND:
            order = equality_messages.read_blind_order(content)
            key = BlindedKey(bytes([client // 2]) * 32, self.testing.run_key, order.number)
            self._members[order.task_id, order.number] = key
            return _padded(equality_messages.blinded_record(key.public))
        if ask is Ask.EQUAL:
            told = equality_messages.read_equal_order(content)
            test = EqualityTest(self.testing.run_key, told.number, told.keys)
            member = self._members.get((told.task_id, told.number))
            if member is None or member.public not in told.keys:
                # its key was replaced on the way
                return refused(ask, DeviceError(Failure.NOT_COMPARED, "no key of this device"))
            try:
                tags = member.tags(test)
            except UserError as error:
                return refused(ask, error)
            return _padded(equality_messages.tags_record(tags))
        steps = messages.values_of(content)
        test = EqualityTest(self.testing.run_key, steps["number"], tuple(steps["twins"]))
        packet = sealed_to_nobody(len(test.keys), test, steps["stop"], self._room)
        return equality_messages.twin_packet_record(packet)

    def _learn_replies(self) -> None:
        """Collect one honest reply of each kind from a device."""
        seen: dict[str, RecordDict] = {}
        names = {
            Ask.HELLO: "hello",
            Ask.TRAIN: "update",
            Ask.SIGNATURES: "signatures",
            Ask.SHARE: "steps",
            Ask.FINISH: "report",
        }
        self._replies["report"] = generation_messages.report_record(FinishReport(1, 1, 2, 4))

        def answer(message: Message, context: Context) -> Message:
            ask = Ask(message.metadata.message_type)
            reply = (
                Message(self._replies["report"], reply_to=message)
                if ask is Ask.FINISH
                else app(message, context)
            )
            if ask in names and int(context.node_config["partition-id"]) == 0:
                seen[names[ask]] = reply.content
            return reply

        grid = LocalGrid(answer, num_clients=2, run_config=self.config.to_run_config(), run_id=0)
        roster = open_roster(grid, num_clients=2, base_hash=self.base_hash)
        rule = load_strategy(self.config.rounds.strategy)
        run_rounds(roster, self.shared, rule, self.config, lambda *_: None)
        PromptService(roster, self.config, lambda _: None).serve(self.shared, None)
        if "steps" not in seen:
            # the other device ran the shared steps
            pipe, _ = base_model(self.config.model)
            seen["steps"] = generation_messages.shared_steps_record(
                run_shared_steps(pipe, "a fruit on a table", self.plan, 2, noise_seed=1)
            )
        self._replies |= seen
        self._replies |= self._told_in_a_test()
        self._num_tags = len(messages.values_of(self._replies["tags"])["tags"]) // TAG_BYTES
        self._packet_bytes = len(messages.values_of(self._replies["twin packet"])["packet"])
        grid = self._grid({}, self.sharing)
        node = next(
            node for node, context in grid._contexts.items() if context.node_config["partition-id"] == 0
        )
        (nodes,) = grid.send_and_receive([Message(messages.body(), node, Ask.SIGNATURES.value)])
        self._replies |= {
            "nodes": nodes.content,
            "taken": self._of_prompts[Ask.OFFER](),
            "key": self._of_prompts[Ask.KEYS](),
            "masked": self._of_prompts[Ask.MASKED](),
        }

    def _told_in_a_test(self) -> dict[str, RecordDict]:
        """Return what devices answer in a whole run with equality tests."""
        seen: dict[str, RecordDict] = {}
        names = {ask: kind for kind, ask in ASKED.items() if kind in TWIN_READERS}
        stock = self._of_a_test

        def recorded(ask: Ask, content: RecordDict, client: int) -> RecordDict:
            seen[names[ask]] = stock(ask, content, client)
            return seen[names[ask]]

        self._of_a_test = recorded  # type: ignore[method-assign]
        grid = self._grid({}, self.testing)
        roster = open_roster(grid, num_clients=self.testing.num_clients, base_hash=self.base_hash)
        PromptService(roster, self.testing, lambda _: None).serve(self.shared, None)
        self._of_a_test = stock  # type: ignore[method-assign]
        return seen


ASKED = {
    "hello": Ask.HELLO,
    "update": Ask.TRAIN,
    "signatures": Ask.SIGNATURES,
    "steps": Ask.SHARE,
    "report": Ask.FINISH,
    "nodes": Ask.SIGNATURES,
    "taken": Ask.OFFER,
    "key": Ask.KEYS,
    "masked": Ask.MASKED,
    "blinded": Ask.BLIND,
    "tags": Ask.EQUAL,
    "twin packet": Ask.TWINS,
}


def _without_tests(config: FederationConfig) -> FederationConfig:
    section = config.generation.denoiser
    assert section is not None
    denoiser = section.model_copy(update={"equal_prompts": False})
    return config.model_copy(
        update={"generation": config.generation.model_copy(update={"denoiser": denoiser})}
    )


def _padded(record: RecordDict) -> RecordDict:
    return generation_messages.of_one_size(record)


@st.composite
def device_reply(draw: st.DrawFn, target: ServerTarget) -> tuple[str, RecordDict]:
    """Draw the kind and content of a broken reply."""
    kind = draw(st.sampled_from(READERS))
    return kind, draw(broken_record(target.honest(kind)))


def _unsound(text: str) -> list[str]:
    """Return descriptions of everything that a record or an error must not contain."""
    found = []
    if len(text) > _MAX_RECORD:
        found.append(f"a record of {len(text)} characters")
    if f"<script>{MARK}" in text or f"[31m{MARK}" in text or "\x1b" in text or "\\u001b" in text:
        found.append("a record with markup or control characters of a client")
    return found
