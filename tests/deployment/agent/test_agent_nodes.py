"""What an agent says of a prompt in the denoiser's space: by its owner's files, and no more than they permit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.wire.generation_messages import offer_record, read_signatures, read_taken
from fedaigc.federation.wire.messages import FAILURE, Ask, body, failure_in
from fedaigc.flower_private import recorddict_to_proto
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.offer import NO_NODE, Offer
from fedaigc.semantics.policy import Policy
from tests.security.orders import changed
from tests.small_atlas import small_atlas
from tests.small_run import MakeRun


@pytest.fixture
def atlas(tmp_path: Path, small_model: Path) -> Path:
    return small_atlas(tmp_path, small_model)


@pytest.fixture
def asked(make_run: MakeRun, atlas: Path) -> FederationConfig:
    """The configuration as devices receive it: it names no file."""
    section = {"atlas": "/of/the/server", "calibration": "/of/the/server", "min_captions": 1, "ladder": [3]}
    generation = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "denoiser": section}
    config = make_run(num_clients=1, prompts=["zorblax, solo"], generation=generation)
    told = config.for_devices()
    assert "/of/the/server" not in told.model_dump_json()
    return told.model_copy(update={"homes": config.homes, "model": config.model})


def agent_of(config: FederationConfig, **settings: Any) -> Agent:
    return Agent(config.home(0), AgentSettings(0, config.model, reply_floor_s=0.01, **settings))


def ask(agent: Agent, kind: Ask, config: FederationConfig, content: RecordDict | None = None) -> RecordDict:
    return agent.answer(kind, config.to_run_config()[RUN_CONFIG_KEY], content or body())


def disclosed(agent: Agent, config: FederationConfig) -> tuple[str, NodeSignature]:
    ((task, signature),) = read_signatures(ask(agent, Ask.SIGNATURES, config), nodes=True)[0].items()
    assert isinstance(signature, NodeSignature)
    return task, signature


def test_a_node_of_the_owners_atlas_by_the_owners_minimum(asked: FederationConfig, atlas: Path) -> None:
    read = Atlas.read(atlas)
    for minimum in (2, 5):
        agent = agent_of(asked, atlas=atlas, min_captions=minimum)
        _, signature = disclosed(agent, asked)
        assert signature.atlas == read.hash
        # the server asked for 1
        vector = agent.node_disclosure(asked).vector(agent.open_device().pipe, "zorblax, solo")
        assert signature.node == read.disclosed(vector, minimum)


def test_without_an_atlas_nothing_is_said_and_the_owner_is_told(asked: FederationConfig) -> None:
    agent = agent_of(asked)
    assert failure_in(ask(agent, Ask.SIGNATURES, asked)) == "configuration_refused"
    assert "--atlas FILE" in (agent.home.root / "errors.log").read_text()


def test_a_silent_owner_discloses_no_node(asked: FederationConfig, atlas: Path) -> None:
    agent = agent_of(asked, atlas=atlas, min_captions=2, policy=Policy.SILENT)
    told, _ = read_signatures(ask(agent, Ask.SIGNATURES, asked), nodes=True)
    assert list(told.values()) == [None]
    assert not agent.open_device().prompts.disclosures.entries()


def test_an_offer_is_answered_by_a_handoff_and_counted(asked: FederationConfig, atlas: Path) -> None:
    agent = agent_of(asked, atlas=atlas, calibration=atlas.with_name("small.json"), min_captions=2)
    task, signature = disclosed(agent, asked)
    nothing = np.zeros(0, np.float32)
    offers = {
        "the node": Offer(task, signature.node, (2, 3), nothing),
        "the node again": Offer(task, signature.node, (2, 3), nothing),
        "a third time": Offer(task, signature.node, (2, 3), nothing),
        "no such task": Offer("0" * 16, signature.node, (2, 3), nothing),
    }
    replies = {name: ask(agent, Ask.OFFER, asked, offer_record(offer)) for name, offer in offers.items()}
    # at K = 3 the damage is above the tolerance
    assert read_taken(replies["the node"], (2, 3)) == read_taken(replies["the node again"], (2, 3)) == 2
    for name in ("a third time", "no such task"):
        assert set(replies[name]) == {FAILURE}
    assert len({len(recorddict_to_proto(reply).SerializeToString()) for reply in replies.values()}) == 1


@pytest.mark.parametrize(
    "which", ["another node", "another node on the way", "a way", "a vector of another length", "a vector"]
)
def test_an_offer_is_for_what_was_disclosed(asked: FederationConfig, atlas: Path, which: str) -> None:
    agent = agent_of(asked, atlas=atlas, calibration=atlas.with_name("small.json"), min_captions=2)
    task, signature = disclosed(agent, asked)
    allowed = Atlas.read(atlas).lifted(signature.node, signature.highest)
    other = next(node for node in range(1, 9) if node not in allowed)
    offer = {
        "another node": Offer(task, other, (2, 3), np.zeros(0, np.float32)),
        "another node on the way": Offer(
            task, signature.node, (2, 3), np.zeros(0, np.float32), (signature.node, other)
        ),
        "a way": Offer(task, allowed[-1], (2, 3), np.zeros(0, np.float32), (allowed[-1], signature.node)),
        "a vector of another length": Offer(task, NO_NODE, (2, 3), np.zeros(3, np.float32)),
        "a vector": Offer(task, NO_NODE, (2, 3), np.zeros(64, np.float32)),
    }[which]
    reply = ask(agent, Ask.OFFER, asked, offer_record(offer))
    if which in ("a way", "a vector"):
        assert read_taken(reply, (2, 3)) == 2
    else:
        assert set(reply) == {FAILURE}
        assert "an offer" in (text := (agent.home.root / "errors.log").read_text()) or "a vector" in text


def test_a_prompt_of_which_nothing_was_disclosed_is_asked_no_further(
    asked: FederationConfig, atlas: Path
) -> None:
    """An offer with a vector names no node, and would ask a silent device how far its prompt is from anything."""
    curve = atlas.with_name("small.json")
    talking = agent_of(asked, atlas=atlas, calibration=curve, min_captions=2)
    (waiting,) = talking.open_device().waiting()
    vector = np.zeros(64, np.float32)
    replies = {"never": ask(talking, Ask.OFFER, asked, offer_record(Offer(waiting, NO_NODE, (2, 3), vector)))}
    silent = agent_of(asked, atlas=atlas, calibration=curve, min_captions=2, policy=Policy.SILENT)
    ((name, signature),) = read_signatures(ask(silent, Ask.SIGNATURES, asked), nodes=True)[0].items()
    assert signature is None
    replies["silent"] = ask(silent, Ask.OFFER, asked, offer_record(Offer(name, NO_NODE, (2, 3), vector)))
    # disclosed before its owner became silent
    task, _ = disclosed(talking, asked)
    replies["then silent"] = ask(silent, Ask.OFFER, asked, offer_record(Offer(task, NO_NODE, (2, 3), vector)))
    for which, reply in replies.items():
        assert set(reply) == {FAILURE}, which
    told = ask(talking, Ask.OFFER, asked, offer_record(Offer(task, NO_NODE, (2, 3), vector)))
    assert read_taken(told, (2, 3)) == 2
    assert not [entry for entry in silent.open_device().prompts.ledger.entries() if entry.said == "null"]


def test_a_server_chooses_no_file_of_a_device(
    asked: FederationConfig, atlas: Path, tmp_path: Path, small_model: Path
) -> None:
    """It names an atlas whose nodes are single captions, and a calibration, where the agent could read them."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    poisoned = small_atlas(theirs, small_model)
    read = Atlas.read(poisoned)
    replace(read, about={"note": "another hash"}).write(poisoned)
    agent = agent_of(asked, atlas=atlas, min_captions=2)
    for key, path in (("atlas", poisoned), ("calibration", poisoned.with_name("small.json"))):
        text = changed(asked, **{f"generation__denoiser__{key}": str(path)})
        reply = agent.answer(Ask.SIGNATURES, text, body())
        if failure_in(reply) is None:
            ((_, signature),) = read_signatures(reply, nodes=True)[0].items()
            assert isinstance(signature, NodeSignature)
            assert signature.atlas == read.hash
            # no calibration of the owner's: the node is not lifted
            assert signature.highest == signature.node
    assert disclosed(agent, asked)[1].atlas == read.hash


def test_an_altered_atlas_of_the_same_name_is_refused(asked: FederationConfig, atlas: Path) -> None:
    read = Atlas.read(atlas)
    agent = agent_of(asked, atlas=atlas, atlas_hash=read.hash[:16], min_captions=2)
    assert disclosed(agent, asked)[1].atlas == read.hash
    altered = replace(read, captions=("something else", *read.captions[1:]))
    altered.write(atlas)
    with pytest.raises(UserError, match=f"the atlas has the hash {altered.hash[:16]}, .* --atlas-hash"):
        agent_of(asked, atlas=atlas, atlas_hash=read.hash, min_captions=2)
    # and where it is altered while the agent runs: the file is read again for another question
    section = asked.generation.denoiser
    assert section is not None
    other = asked.generation.model_copy(update={"denoiser": section.model_copy(update={"min_captions": 3})})
    reply = ask(agent, Ask.SIGNATURES, asked.model_copy(update={"generation": other}))
    assert failure_in(reply) == "order_refused"
    assert "or one that was altered" in (agent.home.root / "errors.log").read_text()
    told = CliRunner().invoke(app, ["device", "start", "home", "--atlas-hash", "ABC"])
    assert told.exit_code == 1
    assert "16 to 64 hexadecimal digits" in told.output + str(told.exception)


@pytest.mark.parametrize(("tolerance", "taken"), [(0.35, 2), (0.8, 3)])
def test_what_a_device_takes_is_bounded_by_its_own_tolerance(
    asked: FederationConfig, atlas: Path, tolerance: float, taken: int
) -> None:
    section = asked.generation.denoiser
    assert section is not None
    generous = asked.generation.model_copy(update={"denoiser": section.model_copy(update={"tolerance": 9.0})})
    config = asked.model_copy(update={"generation": generous})
    curve = atlas.with_name("small.json")
    agent = agent_of(config, atlas=atlas, calibration=curve, min_captions=2, tolerance=tolerance)
    task, signature = disclosed(agent, config)
    offer = Offer(task, signature.node, (2, 3), np.zeros(0, np.float32))
    assert read_taken(ask(agent, Ask.OFFER, config, offer_record(offer)), (2, 3)) == taken
