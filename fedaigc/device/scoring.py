"""How a device judges its own finished image: is the object of the private prompt there, and the place?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image


@dataclass(frozen=True)
class Confidence:
    """Probabilities in [0, 1] that the image shows the object and the place; None where nobody can tell."""

    object: float | None = None
    place: float | None = None


@runtime_checkable
class Scorer(Protocol):
    """Scores an image against the concept ids of its prompt's object and place."""

    def __call__(self, image: Image.Image, object: str | None, place: str | None) -> Confidence:
        """The confidence in each; None for a concept that the scorer does not know."""
        ...


class SceneScorer:
    """The judge of Scenes as a scorer: it knows the concepts that Scenes draws and no others."""

    def __init__(self) -> None:
        # imported here: a device without the judge, or of another data set, does not need them
        from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS
        from fedaigc.metrics.judge import Judge

        self._judge = Judge.load()
        self._objects = {noun.concept: noun.word for noun in OBJECT_NOUNS}
        self._places = {noun.concept: noun.word for noun in PLACE_NOUNS}

    def __call__(self, image: Image.Image, object: str | None, place: str | None) -> Confidence:
        """The judge's probability of the words for the two concepts."""
        (verdict,) = self._judge.score([image])
        return Confidence(
            _probability(verdict.object_probabilities, self._objects, object),
            _probability(verdict.place_probabilities, self._places, place),
        )


def _probability(odds: Mapping[str, float], words: Mapping[str, str], concept: str | None) -> float | None:
    # the judge may have been trained on fewer words than Scenes knows now
    return odds.get(words.get(concept, "")) if concept is not None else None
