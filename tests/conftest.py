"""The embedded model and the knowledge graph, loaded once."""

from typing import Any

import pytest
from hypothesis import settings

# a busy machine is slow, which says nothing about the code
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


# imported inside: most tests need neither torch nor a model
@pytest.fixture(scope="module")
def pipe() -> Any:
    import torch

    from fedaigc.diffusion.loading import load_pipeline

    torch.set_num_threads(1)
    return load_pipeline()


@pytest.fixture(scope="module")
def base_hash(pipe: Any) -> str:
    from fedaigc.diffusion.loading import base_fingerprint

    return base_fingerprint(pipe)


@pytest.fixture(scope="session")
def taxonomy() -> Any:
    from fedaigc.semantics.concepts.taxonomy import Taxonomy

    return Taxonomy.load()
