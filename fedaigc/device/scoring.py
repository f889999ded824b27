"""Scoring of a device's own finished image against its private prompt, by the judge of Scenes or by CLIP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy


@dataclass(frozen=True)
class Confidence:
    """How well an image shows its prompt.

    Attributes:
        object, place: Probabilities in [0, 1] that it shows the object and the place; None if unknown.
        clip: CLIP score in [0, 100]; None if CLIP was not asked, or does not read a prompt of this length.
    """

    object: float | None = None
    place: float | None = None
    clip: float | None = None


@runtime_checkable
class Scorer(Protocol):
    """Interface of a scorer of images against prompts and the concept ids of their objects and places."""

    def __call__(
        self, image: Image.Image, object: str | None, place: str | None, prompt: str = ""
    ) -> Confidence:
        """Return what the scorer knows; None for a concept that it does not know."""
        ...


def scored(scorer: Scorer | None, image: Image.Image, prompt: str, taxonomy: Taxonomy) -> Confidence:
    """Return how well an image shows a prompt; nothing is known without a scorer."""
    if scorer is None:
        return Confidence()
    parsed = parse(prompt, taxonomy)
    return scorer(image, parsed.object, parsed.place, prompt)


class SceneScorer:
    """The judge of Scenes as a scorer. It knows the concepts that Scenes draws and no others."""

    def __init__(self) -> None:
        # imported here: a device without the judge, or with another data set, does not need them
        from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS
        from fedaigc.metrics.judge import Judge

        self._judge = Judge.load()
        self._objects = {noun.concept: noun.word for noun in OBJECT_NOUNS}
        self._places = {noun.concept: noun.word for noun in PLACE_NOUNS}

    def __call__(
        self, image: Image.Image, object: str | None, place: str | None, prompt: str = ""
    ) -> Confidence:
        """Return the judge's probabilities of the words for the two concepts."""
        (verdict,) = self._judge.score([image])
        return Confidence(
            _probability(verdict.object_probabilities, self._objects, object),
            _probability(verdict.place_probabilities, self._places, place),
        )


class ClipScorer:
    """CLIP as a scorer: it compares an image with the whole prompt.

    Args:
        model: Folder of a CLIP model, or its hub name in the local cache; None: `metrics.perceptual.CLIP`.

    Raises:
        UserError: If the model is not available.
    """

    def __init__(self, model: str | None = None) -> None:
        # imported here: a device that is not asked for it does not need it
        from fedaigc.metrics.perceptual import CLIP, ClipScore

        self._clip = ClipScore.load(model or CLIP)

    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """Return a score in [0, 100] for each image; None where CLIP does not read a prompt of this length."""
        return [
            self._clip.score([image], [prompt])[0] if self._clip.reads(prompt) else None
            for image, prompt in zip(images, prompts, strict=True)
        ]

    def __call__(
        self, image: Image.Image, object: str | None, place: str | None, prompt: str = ""
    ) -> Confidence:
        """Return the CLIP score of the image and the prompt."""
        (score,) = self.scores([image], [prompt])
        return Confidence(clip=score)


def _probability(odds: Mapping[str, float], words: Mapping[str, str], concept: str | None) -> float | None:
    # the judge may have been trained on fewer words than Scenes has now
    return odds.get(words.get(concept, "")) if concept is not None else None
