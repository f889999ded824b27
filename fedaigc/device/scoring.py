"""Scoring of a device's own finished image: does it show the object and the place of the private prompt?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image


@dataclass(frozen=True)
class Confidence:
    """Probabilities in [0, 1] that an image shows the object and the place; None if unknown."""

    object: float | None = None
    place: float | None = None


@runtime_checkable
class Scorer(Protocol):
    """Interface of a scorer of images against the concept ids of their prompts' objects and places."""

    def __call__(self, image: Image.Image, object: str | None, place: str | None) -> Confidence:
        """Return the confidence in each concept; None for a concept that the scorer does not know."""
        ...


class SceneScorer:
    """The judge of Scenes as a scorer. It knows the concepts that Scenes draws and no others."""

    def __init__(self) -> None:
        # imported here: a device without the judge, or with another data set, does not need them
        from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS
        from fedaigc.metrics.judge import Judge

        self._judge = Judge.load()
        self._objects = {noun.concept: noun.word for noun in OBJECT_NOUNS}
        self._places = {noun.concept: noun.word for noun in PLACE_NOUNS}

    def __call__(self, image: Image.Image, object: str | None, place: str | None) -> Confidence:
        """Return the judge's probabilities of the words for the two concepts."""
        (verdict,) = self._judge.score([image])
        return Confidence(
            _probability(verdict.object_probabilities, self._objects, object),
            _probability(verdict.place_probabilities, self._places, place),
        )


def _probability(odds: Mapping[str, float], words: Mapping[str, str], concept: str | None) -> float | None:
    # the judge may have been trained on fewer words than Scenes has now
    return odds.get(words.get(concept, "")) if concept is not None else None
