"""Prompt pairs of Scenes at five grades of what both prompts have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.quality.setting import kind_of
from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, RELATIONS, Noun
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.taxonomy import Taxonomy

# same relation in both prompts; from near to far
GRADES = ("kind and place", "place", "object", "kind", "nothing")


@dataclass(frozen=True)
class GradedPair:
    """A target prompt with its object and place as the judge names them, and the prompt of another member."""

    grade: str
    object: str
    place: str
    own: str
    other: str


def graded_pairs(each: int, seed: int) -> list[GradedPair]:
    """Draw `each` different pairs of every grade."""
    taxonomy, random = Taxonomy.load(), numpy_rng(seed, "graded pairs")

    def one(nouns: Sequence[Noun]) -> Noun:
        return nouns[int(random.integers(len(nouns)))]

    def other_object(grade: str, target: Noun) -> Noun | None:
        if grade == "object":
            return target
        alike = grade in ("kind and place", "kind")
        kind = kind_of(target, taxonomy)
        fitting = [n for n in OBJECT_NOUNS if n != target and (kind_of(n, taxonomy) == kind) == alike]
        return one(fitting) if fitting else None

    found: list[GradedPair] = []
    for grade in GRADES:
        drawn: dict[GradedPair, None] = {}
        while len(drawn) < each:
            target, place = one(OBJECT_NOUNS), one(PLACE_NOUNS)
            other = other_object(grade, target)
            same_place = grade in ("kind and place", "place")
            there = place if same_place else one([noun for noun in PLACE_NOUNS if noun != place])
            relation = RELATIONS[int(random.integers(len(RELATIONS)))]
            if other is not None:
                own = f"{target.phrase} {relation} {place.phrase}"
                theirs = f"{other.phrase} {relation} {there.phrase}"
                drawn[GradedPair(grade, target.word, place.word, own, theirs)] = None
        found += drawn
    return found
