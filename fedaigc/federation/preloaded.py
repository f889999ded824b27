"""Parts that every machine of a federation has: base model, knowledge graph and judge, loaded once per process."""

import functools
from typing import TYPE_CHECKING

from fedaigc.device.scoring import SceneScorer
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.semantics.concepts.taxonomy import Taxonomy

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@functools.lru_cache(maxsize=1)
def base_model(model: ModelSection) -> tuple["DiffusionPipeline", str]:
    """Return the pipeline and its fingerprint.

    The server and all clients of a process share the pipeline, so each installs its own adapters before use.
    """
    # imported here, because diffusers takes seconds to import and not every message needs it
    from fedaigc.diffusion.loading import base_fingerprint, load_pipeline

    pipe = load_pipeline(model.name, device=model.device, dtype=model.dtype)
    return pipe, base_fingerprint(pipe)


@functools.lru_cache(maxsize=1)
def taxonomy() -> Taxonomy:
    """Return the knowledge graph."""
    return Taxonomy.load()


@functools.lru_cache(maxsize=1)
def scene_scorer() -> SceneScorer:
    """Return the judge of Scenes."""
    return SceneScorer()
