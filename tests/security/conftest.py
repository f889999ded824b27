"""A device whose agent answers, and a limit of processor time."""

import time
from collections.abc import Callable

import pytest

from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.federation.config.run_config import FederationConfig
from tests.small_run import MakeRun


@pytest.fixture
def config(make_run: MakeRun) -> FederationConfig:
    return make_run(num_clients=1)


@pytest.fixture
def agent(config: FederationConfig) -> Agent:
    return Agent(config.home(0), AgentSettings(0, config.model))


@pytest.fixture
def within() -> Callable[..., None]:
    """Return a check of how much processor time has passed since the test began."""
    began = time.process_time()

    def check(limit: float = 1.0) -> None:
        assert time.process_time() - began < limit

    return check
