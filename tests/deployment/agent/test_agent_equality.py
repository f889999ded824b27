"""Equality tests on agents: as in a simulation, by the owner's permission, and whatever a server asks."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict

from fedaigc.collaboration.equality.blinded_keys import BlindedKey, EqualityTest
from fedaigc.collaboration.equality.twin_packets import open_from_twin
from fedaigc.collaboration.results import Outcome
from fedaigc.collaboration.sealing import SealError
from fedaigc.collaboration.session import FinishOrder, ShareOrder, TwinSteps
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.device.home.equality import EqualityLog
from fedaigc.device.limits import OwnerLimits
from fedaigc.diffusion.conditioning import prompt_digest
from fedaigc.diffusion.handoff.packing import unpack
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import in_process_run, run_in_process
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.server_app import initial_shared_state, serve
from fedaigc.federation.wire import equality_messages, generation_messages, messages
from fedaigc.federation.wire.equality_messages import BlindOrder, EqualOrder
from fedaigc.federation.wire.messages import FAILURE, Ask, failure_in, values_of
from fedaigc.flower_private import recorddict_to_proto
from fedaigc.semantics.policy import Policy
from tests.small_atlas import CAPTIONS, small_atlas
from tests.small_run import MakeRun, generation_of, images

NUMBERS = [f"{number:032x}" for number in range(4)]
PROMPTS = ("1girl, solo, zorblax", "1girl,  solo, Zorblax")
PERMITTED = OwnerLimits(equal_prompts=True, boundary_timestep=None)


@pytest.fixture
def atlas(tmp_path: Path, small_model: Path) -> Path:
    return small_atlas(tmp_path, small_model)


@pytest.fixture
def configs(make_run: MakeRun, atlas: Path) -> list[FederationConfig]:
    """The same run twice, with untouched homes of their own."""
    section = {"atlas": atlas, "min_captions": len(CAPTIONS), "equal_prompts": True}
    generation = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "denoiser": section}
    values: dict[str, Any] = {"rounds": {"count": 0}, "adapter": {"rank": 2, "boundary_timestep": None}}
    return [
        make_run(folder, num_clients=2, prompts=PROMPTS, generation=generation, **values)
        for folder in ("one", "other")
    ]


def agent_of(config: FederationConfig, atlas: Path, client: int = 0, **settings: Any) -> Agent:
    settings = {"limits": PERMITTED, "min_captions": len(CAPTIONS), **settings}
    return Agent(
        config.home(client),
        AgentSettings(client, config.model, reply_floor_s=0.01, atlas=atlas, **settings),
    )


def told(config: FederationConfig) -> str:
    """The configuration as devices receive it."""
    sent = config.for_devices().model_copy(update={"homes": config.homes, "model": config.model})
    return sent.to_run_config()[RUN_CONFIG_KEY]


def test_agents_draw_what_a_simulation_draws(configs: list[FederationConfig], atlas: Path) -> None:
    run_in_process(configs[0])
    agents = {client: agent_of(configs[1], atlas, client) for client in range(2)}

    def answer(message: Message, context: Context) -> Message:
        agent = agents[int(context.node_config["partition-id"])]
        reply = agent.answer(Ask(message.metadata.message_type), told(configs[1]), message.content)
        return Message(reply, reply_to=message)

    with in_process_run(configs[1]) as run_id:
        grid = LocalGrid(
            answer, num_clients=2, run_config=configs[1].to_run_config(), run_id=run_id, shuffle_seed=1
        )
        serve(grid, configs[1])
    drawn = [images(config) for config in configs]
    assert len(drawn[0]) == 2
    assert drawn[0] == drawn[1]
    for config in configs:
        (group,) = generation_of(read_record(config.output)).groups
        assert (group.conditioning, group.num_shared_steps) == ("own", 3)
        assert [task.outcome for task in group.tasks] == [Outcome.SHARED] * 2


class Server:
    """A server that asks one agent what it likes."""

    def __init__(self, config: FederationConfig, agent: Agent) -> None:
        self.config, self.agent = config, agent
        (self.task,) = agent.open_device().waiting()
        self.digest = prompt_digest(agent.open_device().pipe, PROMPTS[0])

    def ask(self, kind: Ask, record: RecordDict) -> RecordDict:
        return self.agent.answer(kind, told(self.config), record)

    def blind(self, number: str) -> bytes | None:
        reply = self.ask(Ask.BLIND, equality_messages.blind_order_record(BlindOrder(self.task, number)))
        return None if FAILURE in reply else equality_messages.read_blinded(reply)

    def equal(self, number: str, *keys: bytes) -> RecordDict:
        return self.ask(Ask.EQUAL, equality_messages.equal_order_record(EqualOrder(self.task, number, keys)))

    def member(self, prompt_digest: bytes, number: str) -> BlindedKey:
        """A member that the server makes up, with a guess."""
        return BlindedKey(prompt_digest, self.config.run_key, number)


@pytest.mark.parametrize(
    "settings",
    [
        {"limits": OwnerLimits(boundary_timestep=None)},
        {"policy": Policy.SILENT},
        {"limits": OwnerLimits(equal_prompts=True, max_epsilon_a_day=1.0)},
        {"limits": OwnerLimits(equal_prompts=True, max_bits_a_day=0.9)},
    ],
)
def test_the_owner_decides(configs: list[FederationConfig], atlas: Path, settings: Any) -> None:
    server = Server(configs[0], agent_of(configs[0], atlas, **settings))
    own = server.blind(NUMBERS[0])
    other = server.member(server.digest, NUMBERS[0])
    reply = server.equal(NUMBERS[0], own or bytes(32), other.public)
    assert failure_in(reply) == "not_compared"
    assert len(recorddict_to_proto(reply).SerializeToString()) == 1024
    assert not [e for e in server.agent.open_device().prompts.ledger.entries() if e.kind == "equality"]


def test_a_task_answers_two_tests_of_one_guess_a_member(configs: list[FederationConfig], atlas: Path) -> None:
    server = Server(configs[0], agent_of(configs[0], atlas))
    own = server.blind(NUMBERS[0])
    assert own is not None
    wrong, right = (server.member(digest, NUMBERS[0]) for digest in (bytes(32), server.digest))
    for keys in (
        (own,),
        (own, own),
        (own, bytes(32)),
        (own, b"\xff" * 32),
        (wrong.public, right.public),
        (own, *[bytes([i]) * 31 + b"\0" for i in range(65)]),
    ):
        assert failure_in(server.equal(NUMBERS[0], *keys)) == "not_compared"
    assert failure_in(server.equal(NUMBERS[1], own, right.public)) == "not_compared"
    # no refusal has used the key up; a restart neither
    server.agent = agent_of(configs[0], atlas)
    reply = server.equal(NUMBERS[0], own, wrong.public, right.public)
    tags = equality_messages.read_tags(reply, 2)
    expected = {wrong.public: False, right.public: True}
    agreed = EqualityTest(configs[0].run_key, NUMBERS[0], (own, wrong.public, right.public))
    for other, tag in zip(agreed.others(own), tags, strict=True):
        guess = right if other == right.public else wrong
        mine = dict(zip(agreed.others(other), guess.tags(agreed), strict=True))[own]
        assert (mine == tag) == expected[other]
    # the same test again, and a third one, tell nothing
    assert failure_in(server.equal(NUMBERS[0], own, wrong.public, right.public)) == "not_compared"
    again = server.blind(NUMBERS[1])
    assert again is not None
    equality_messages.read_tags(
        server.equal(NUMBERS[1], again, server.member(bytes(32), NUMBERS[1]).public), 1
    )
    assert server.blind(NUMBERS[2]) is None
    bits = [e.bits for e in server.agent.open_device().prompts.ledger.entries() if e.kind == "equality"]
    assert bits == [pytest.approx(1.585, abs=1e-3), 1.0]


def test_a_server_that_lies_about_equality_gets_a_packet_that_opens_for_nobody(
    configs: list[FederationConfig], atlas: Path
) -> None:
    config = configs[0]
    server = Server(config, agent_of(config, atlas))
    plan = plan_generation(initial_shared_state(config), config)
    shared = messages.shared_state_record(initial_shared_state(config))
    assert failure_in(server.ask(Ask.INSTALL, shared)) is None
    own = server.blind(NUMBERS[0])
    assert own is not None
    guess = server.member(bytes(32), NUMBERS[0])
    twins = TwinSteps(NUMBERS[0], own, (own, guess.public), 3)
    order = ShareOrder(0, server.task, "", 7, plan, 3, twins=twins)
    # not before the tags were said
    assert failure_in(server.ask(Ask.TWINS, equality_messages.twin_order_record(order))) == "not_compared"
    equality_messages.read_tags(server.equal(NUMBERS[0], own, guess.public), 1)
    packet = values_of(server.ask(Ask.TWINS, equality_messages.twin_order_record(order)))["packet"]
    test = EqualityTest(config.run_key, NUMBERS[0], (own, guess.public))
    with pytest.raises(SealError):
        open_from_twin(packet, guess, test, own, 3)
    # it holds the steps that the executor ran
    (entry,) = EqualityLog(server.agent.home).entries()
    device = BlindedKey(server.digest, config.run_key, NUMBERS[0], bytes.fromhex(entry.private))
    assert unpack(open_from_twin(packet, device, test, own, 3), plan).step == 3
    # once a test
    assert failure_in(server.ask(Ask.TWINS, equality_messages.twin_order_record(order))) == "not_compared"
    # its own packet opens for the executor, once; what opens it is gone afterwards
    finish = FinishOrder(0, server.task, plan, 0, packet, TwinSteps(NUMBERS[0], own, (), 3))
    bad = FinishOrder(0, server.task, plan, 0, packet[:-1] + b"x", finish.twins)
    assert failure_in(server.ask(Ask.FINISH, generation_messages.finish_record(bad))) == "not_finished"
    assert failure_in(server.ask(Ask.FINISH, generation_messages.finish_record(finish))) == "not_finished"
    assert server.agent.open_device().waiting() == [server.task]
