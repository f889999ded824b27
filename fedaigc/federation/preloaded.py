"""What every machine of a federation has already.

The base model, the knowledge graph and the judge, read once in a process.
"""

import functools
from typing import TYPE_CHECKING

from fedaigc.device.scoring import SceneScorer
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.semantics.concepts.taxonomy import Taxonomy

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@functools.lru_cache(maxsize=1)
def base_model(model: ModelSection) -> tuple["DiffusionPipeline", str]:
    """The pipeline and its fingerprint.

    In process the server and all clients share it, so whoever computes installs its own adapters first.
    """
    # imported here: diffusers takes seconds, and not every message needs it
    from fedaigc.diffusion.loading import base_fingerprint, load_pipeline

    pipe = load_pipeline(model.name, device=model.device, dtype=model.dtype)
    return pipe, base_fingerprint(pipe)


@functools.lru_cache(maxsize=1)
def taxonomy() -> Taxonomy:
    """The knowledge graph."""
    return Taxonomy.load()


@functools.lru_cache(maxsize=1)
def scene_scorer() -> SceneScorer:
    """The judge of Scenes."""
    return SceneScorer()
