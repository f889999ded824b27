"""An atlas over one half of the captions of Scenes; the other half are the prompts of people."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, RELATIONS
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.rng import numpy_rng
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import build_tree, caption_vectors
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace

MINIMUM = 8


@dataclass(frozen=True)
class Labelled:
    """A caption of Scenes with the words of its object and its place."""

    text: str
    object: str
    place: str


@dataclass(frozen=True)
class ScenesAtlas:
    """The atlas, its captions with their parts, and the prompts with their vectors.

    Attributes:
        base: Fingerprint of the base model.
        atlas: The atlas; m is `MINIMUM`.
        public: Its captions, in its order.
        prompts: The other captions.
        vectors: Vector of each prompt.
        everything: All captions, public or not.
        all_vectors: Their vectors.
    """

    base: str
    atlas: Atlas
    public: list[Labelled]
    prompts: list[Labelled]
    vectors: Float[np.ndarray, "n d"]
    everything: list[Labelled]
    all_vectors: Float[np.ndarray, "captions d"]


def all_captions() -> list[Labelled]:
    """Return all captions of Scenes, sorted."""
    found = [
        Labelled(f"{thing.phrase} {relation} {place.phrase}", thing.word, place.word)
        for thing in OBJECT_NOUNS
        for relation in RELATIONS
        for place in PLACE_NOUNS
    ]
    return sorted(found, key=lambda caption: caption.text)


def scenes_atlas(seed: int, parts: Path, progress: Callable[[int], None] | None = None) -> ScenesAtlas:
    """Return the atlas over a random half of the captions, on the embedded model.

    Args:
        seed: Seed of the division.
        parts: Folder that keeps vectors, so that they are computed once.
        progress: Called with the number of captions that are done.
    """
    pipe: Any = load_pipeline()
    base = base_fingerprint(pipe)
    plan = build_plan(pipe, num_inference_steps=11, guidance_scale=5.0, height=64, width=64, base_hash=base)
    space = DenoiserSpace.of(plan)
    captions = all_captions()
    vectors = caption_vectors(pipe, space, [caption.text for caption in captions], parts, progress)
    order = numpy_rng(seed, "halves").permutation(len(captions))
    public, private = sorted(order[: len(order) // 2]), sorted(order[len(order) // 2 :])
    texts = [captions[i].text for i in public]
    return ScenesAtlas(
        base,
        build_tree(space.hash, {"model": "embedded"}, texts, vectors[public], MINIMUM),
        [captions[i] for i in public],
        [captions[i] for i in private],
        vectors[private],
        captions,
        vectors,
    )
