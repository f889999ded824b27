"""Orders to train as a server sends them, and the replies of an agent in this process."""

from dataclasses import replace
from typing import Any

import torch
from flwr.app import RecordDict

from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire import messages
from fedaigc.federation.wire.messages import FAILURE, Ask, values_of
from fedaigc.rng import numpy_rng
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received


def agent_of(config: FederationConfig, **limits: Any) -> Agent:
    """Return the agent of the first home, with these limits of its owner in place of the defaults.

    The small model uses ten times the default learning rate and has two pictures, so passes are limited only if a limit
    is given.
    """
    agent = Agent(config.home(0), AgentSettings(0, config.model))
    # at b8a6c4d an owner had no limits
    before = getattr(agent, "limits", None)
    if before is not None:
        agent.limits = replace(before, **({"max_learning_rate": 1e-2, "max_passes": 1e6} | limits))
    return agent


def start(config: FederationConfig) -> SharedState:
    """Return the state before the first round."""
    rule = load_strategy(config.rounds.strategy, config.rounds.options)
    return rule.initial(initial_shared_state(config, full_weights=rule.traits.full_weights))


def asked(agent: Agent, config: FederationConfig, shared: SharedState, number: int = 1) -> RecordDict:
    """Return the reply to an order to train round `number`."""
    rule = load_strategy(config.rounds.strategy, config.rounds.options)
    received = rule.download(shared, 0, shared.rank, number) if shared.lora else Received(shared, number)
    order = messages.train_record(
        received, "float32", numpy_rng(0, "order"), strategy_code(config.rounds.strategy)
    )
    return agent.answer(Ask.TRAIN, config.to_run_config()[RUN_CONFIG_KEY], order)


def kind(reply: RecordDict) -> str | None:
    """Return the kind of failure in a reply, or None for an update."""
    return str(values_of(reply, FAILURE)["kind"]) if FAILURE in reply else None


def update(reply: RecordDict) -> dict[str, torch.Tensor]:
    """Return the tensors of an update."""
    assert kind(reply) is None, kind(reply)
    return messages.read_tensors(reply)


def changed(config: FederationConfig, section: str, **values: Any) -> FederationConfig:
    """Return the configuration with other values in one section, or with another name of the run."""
    from fedaigc.federation.config.run_config import parse_config

    told = config.model_dump()
    told[section] = told[section] | values
    return parse_config(told)
