"""Keys of sums are signed with the node key of a device, and owners decide whether and with whom to sum."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedaigc.collaboration.secure_sum.fixed_point import num_values
from fedaigc.collaboration.secure_sum.masks import SumKey
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.deployment.agent.node_signing import node_signer, read_trusted_keys
from fedaigc.deployment.server.keys import make_device_key
from fedaigc.device.limits import OwnerLimits
from fedaigc.diffusion.conditioning import prompt_conditioning
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.wire import sum_messages
from fedaigc.federation.wire.messages import FAILURE, Ask, body, values_of
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from fedaigc.semantics.denoiser.atlas import Atlas
from tests.small_atlas import CAPTIONS, small_atlas
from tests.small_run import MakeRun

NUMBER = "ab" * 16


@pytest.fixture
def atlas(tmp_path: Path, small_model: Path) -> Path:
    return small_atlas(tmp_path, small_model)


@pytest.fixture
def config(make_run: MakeRun, atlas: Path) -> FederationConfig:
    """The configuration as devices receive it."""
    section = {"atlas": atlas, "conditioning": "mean"}
    generation = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "denoiser": section}
    made = make_run(num_clients=1, generation=generation)
    return made.for_devices().model_copy(update={"homes": made.homes, "model": made.model})


def agent_of(config: FederationConfig, atlas: Path, **limits: Any) -> Agent:
    """Return an agent whose prompts disclose the root of its atlas."""
    settings = AgentSettings(
        0, config.model, reply_floor_s=0.01, atlas=atlas, min_captions=len(CAPTIONS), **limits
    )
    return Agent(config.home(0), settings)


def asked(agent: Agent, config: FederationConfig, order: KeyOrder | MaskOrder) -> Any:
    """Return what the agent replies: a key, the number of values that it gave, or the kind of its failure."""
    text = config.to_run_config()[RUN_CONFIG_KEY]
    if isinstance(order, KeyOrder):
        reply = agent.answer(Ask.KEYS, text, sum_messages.key_order_record(order))
        return values_of(reply, FAILURE)["kind"] if FAILURE in reply else sum_messages.read_key(reply)
    reply = agent.answer(Ask.MASKED, text, sum_messages.mask_order_record(order))
    return values_of(reply, FAILURE)["kind"] if FAILURE in reply else values_of(reply)["count"]


def test_an_agent_sums_with_devices_that_its_owner_trusts(
    config: FederationConfig, atlas: Path, tmp_path: Path
) -> None:
    device = agent_of(config, atlas).open_device()
    task, other, *_ = device.waiting()
    read = Atlas.read(atlas)
    prompt = read.captions[read.medoid(0)]
    sums = OwnerLimits(sums=True)
    # nothing was disclosed of it
    assert asked(agent_of(config, atlas, limits=sums), config, KeyOrder(task, "cd" * 16)) == "not_summed"
    agent_of(config, atlas).answer(Ask.SIGNATURES, config.to_run_config()[RUN_CONFIG_KEY], body())
    assert asked(agent_of(config, atlas, limits=sums), config, KeyOrder(task, "cd" * 16)).node_key == b""
    assert asked(agent_of(config, atlas), config, KeyOrder(task, NUMBER)) == "not_summed"
    make_device_key(config.home(0) / "keys")
    others = [node_signer(make_device_key(tmp_path / str(i)).with_suffix("")) for i in range(2)]
    listed = tmp_path / "trusted"
    listed.write_bytes(
        b"# the two others\n"
        + b"\n".join((tmp_path / str(i) / "device.key.pub").read_bytes() for i in range(2))
    )
    agent = agent_of(config, atlas, limits=sums, trusted_keys=read_trusted_keys(listed))
    own = asked(agent, config, KeyOrder(task, NUMBER))
    mine = node_signer(config.home(0) / "keys" / "device.key")
    assert mine is not None
    assert own.node_key == mine[0]
    members = [own]
    for signer in others:
        assert signer is not None
        announced = replace(own, key=SumKey().public)
        text = announced.signed_text(config.run_key, NUMBER)
        members.append(replace(announced, node_key=signer[0], signature=signer[1](text)))
    # made up by the server
    false = replace(members[2], key=SumKey().public)
    for wrong in (
        MaskOrder(task, NUMBER, prompt, (*members[:2], false)),
        MaskOrder(task, NUMBER, prompt, tuple(members[:2])),
        MaskOrder(task, NUMBER, "a caption of no atlas", tuple(members)),
        MaskOrder(task, NUMBER, prompt, ()),
        MaskOrder(task, "cd" * 16, prompt, tuple(members)),
        MaskOrder(other, NUMBER, prompt, tuple(members)),
        MaskOrder("0" * 16, NUMBER, prompt, tuple(members)),
    ):
        assert asked(agent, config, wrong) == "not_summed"
    # with a budget of epsilon, nothing without noise is given
    poor = OwnerLimits(sums=True, max_epsilon_a_day=1.0)
    good = MaskOrder(task, NUMBER, prompt, tuple(members))
    assert asked(agent_of(config, atlas, limits=poor), config, good) == "not_summed"
    # after a restart too, and no refusal has used the key up
    again = agent_of(config, atlas, limits=sums, trusted_keys=read_trusted_keys(listed))
    assert asked(again, config, good) == num_values(prompt_conditioning(device.pipe, ""))
    assert asked(again, config, good) == "not_summed"
    assert asked(again, config, KeyOrder(task, "cd" * 16)) == "not_summed"
    (entry,) = [entry for entry in device.prompts.ledger.entries() if entry.kind == "sum"]
    assert (entry.task_id, entry.said) == (task, "masked, in a sum of 3")
    # what a simulation may ask for, no agent gives
    assert config.generation.denoiser is not None
    clear = config.generation.denoiser.model_copy(update={"conditioning": "member"})
    plain = config.model_copy(update={"generation": config.generation.model_copy(update={"denoiser": clear})})
    assert asked(again, plain, MaskOrder(other, NUMBER, prompt, ())) == "not_summed"


def test_files_that_hold_no_keys_are_refused(tmp_path: Path) -> None:
    assert node_signer(tmp_path / "none") is None
    make_device_key(tmp_path / "keys")
    with pytest.raises(UserError, match="is not a device's key"):
        node_signer(tmp_path / "keys" / "device.key.pub")
    assert len(read_trusted_keys(tmp_path / "keys" / "device.key.pub")) == 1
    with pytest.raises(UserError, match="line 1: no public key"):
        read_trusted_keys(tmp_path / "keys" / "device.key")
    with pytest.raises(UserError, match="No such file"):
        read_trusted_keys(tmp_path / "none")
