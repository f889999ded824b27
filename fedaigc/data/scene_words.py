"""The words of Scenes: objects, places, relations, and the general words above objects and places."""

import json
from dataclasses import dataclass
from functools import cache
from typing import get_args

from fedaigc import assets
from fedaigc.data.kinds import Label

# the article of nouns without one: "food on furniture"
MASS = ""


@dataclass(frozen=True)
class Noun:
    """A word of the captions and its concept in the knowledge graph.

    Attributes:
        word: The noun.
        concept: Concept id in the knowledge graph.
        article: "a" or "an", or MASS for a noun without an article.
    """

    word: str
    concept: str
    article: str

    @property
    def phrase(self) -> str:
        """The noun as captions write it, e.g. "an apple" or "food"."""
        return f"{self.article} {self.word}".strip()


@cache
def _table() -> dict[str, tuple[Noun, ...]]:
    table = json.loads(assets.path("concepts.json").read_text())
    return {
        key: tuple(Noun(**noun) for noun in table[key])
        for key in ("objects", "places", "general_objects", "general_places")
    }


OBJECT_NOUNS = _table()["objects"]
PLACE_NOUNS = _table()["places"]
GENERAL_OBJECT_NOUNS = _table()["general_objects"]
GENERAL_PLACE_NOUNS = _table()["general_places"]

OBJECTS = tuple(noun.word for noun in OBJECT_NOUNS)
PLACES = tuple(noun.word for noun in PLACE_NOUNS)
RELATIONS = ("on", "near", "above")
LABELS: tuple[Label, ...] = get_args(Label)


def held_out(word: str, place: str) -> bool:
    """Return whether the pair (object, place) is held out of all training: one in eight, 3 per place."""
    return (OBJECTS.index(word) + 3 * PLACES.index(place)) % 8 == 0
