"""Tiny pipelines of every family, built once per session."""

import functools

import pytest
import torch

from tests.diffusion.tiny_pipelines import Tiny, tiny_pipeline


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # equality bit for bit holds at equal thread counts
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """tiny("sd1"), ...: the pipeline of a family. Tests may change its scheduler, never its weights."""
    return functools.cache(tiny_pipeline)
