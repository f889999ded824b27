"""Runs that several tests read, each carried out once a session. Tests do not change their homes or outputs."""

from pathlib import Path

import pytest

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.runtime.launcher import run_in_process
from tests.small_run import MakeRun, run_maker


@pytest.fixture(scope="module")
def make_module_run(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Like `make_run`, for fixtures of a module."""
    return run_maker(small_model, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def three_rounds(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FederationConfig:
    """A finished run of three rounds with three clients, which draws nothing."""
    make = run_maker(small_model, tmp_path_factory.mktemp("three-rounds"))
    config = make(generation={"enabled": False}, rounds={"count": 3})
    run_in_process(config)
    return config


@pytest.fixture(scope="session")
def whole_run(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FederationConfig:
    """A finished run of `make_run`'s own settings: two rounds, and pictures of all prompts."""
    config = run_maker(small_model, tmp_path_factory.mktemp("whole"))()
    run_in_process(config)
    return config
