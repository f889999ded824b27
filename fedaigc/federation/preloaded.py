"""Parts of a federation that a process loads once: base model, knowledge graph, and the scorers of pictures."""

import functools
from typing import TYPE_CHECKING

from fedaigc.device.scoring import ClipScorer, SceneScorer, Scorer
from fedaigc.federation.config.run_config import GenerationSection, ModelSection
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

    pipe = load_pipeline(model.name, device=model.device, dtype=model.dtype, variant=model.variant)
    return pipe, base_fingerprint(pipe)


@functools.lru_cache(maxsize=1)
def taxonomy() -> Taxonomy:
    """Return the knowledge graph."""
    return Taxonomy.load()


@functools.lru_cache(maxsize=1)
def scene_scorer() -> SceneScorer:
    """Return the judge of Scenes."""
    return SceneScorer()


@functools.lru_cache(maxsize=1)
def clip_scorer(model: str | None) -> ClipScorer:
    """Return CLIP of a folder or of a hub name in the local cache.

    Raises:
        UserError: If the model is not available.
    """
    return ClipScorer(model)


def scorer_of(settings: GenerationSection) -> Scorer | None:
    """Return the scorer that a configuration names, or None.

    Raises:
        UserError: If the weights of CLIP are not available.
    """
    if settings.scorer == "clip":
        return clip_scorer(settings.clip_model)
    return scene_scorer() if settings.scorer == "scenes" else None
