"""The embedded model and the knowledge graph, loaded once."""

import pytest
import torch

from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.semantics.taxonomy import Taxonomy


@pytest.fixture(scope="module")
def pipe():
    torch.set_num_threads(1)
    return load_pipeline()


@pytest.fixture(scope="module")
def base_hash(pipe):
    return base_fingerprint(pipe)


@pytest.fixture(scope="session")
def taxonomy():
    return Taxonomy.load()
