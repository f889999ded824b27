"""The public vocabulary: the concepts that may leave a device, and their words in captions.

The vocabulary is closed and public in advance: the objects and places that Scenes draws, and the general
words above them (assets/concepts.json). The shipped model has seen all of them in captions.
"""

from enum import StrEnum
from functools import cache
from types import MappingProxyType

from fedaigc.data.scene_words import (
    GENERAL_OBJECT_NOUNS,
    GENERAL_PLACE_NOUNS,
    OBJECT_NOUNS,
    PLACE_NOUNS,
    Noun,
)


class Relation(StrEnum):
    """How the object stands to the place."""

    ON = "on"
    NEAR = "near"
    ABOVE = "above"


class Role(StrEnum):
    """The role of a concept in a prompt.

    The root of the graph is "a thing" as an object and "a place" as a place.
    """

    OBJECT = "object"
    PLACE = "place"


@cache
def drawn_nouns(role: Role) -> MappingProxyType[str, Noun]:
    """Return the concepts that Scenes draws in this role, by concept id."""
    nouns = OBJECT_NOUNS if role is Role.OBJECT else PLACE_NOUNS
    return MappingProxyType({noun.concept: noun for noun in nouns})


@cache
def general_nouns(role: Role) -> MappingProxyType[str, Noun]:
    """Return the general words above the drawn nouns, including the root's, by concept id."""
    nouns = GENERAL_OBJECT_NOUNS if role is Role.OBJECT else GENERAL_PLACE_NOUNS
    return MappingProxyType({noun.concept: noun for noun in nouns})


@cache
def public_nouns(role: Role) -> MappingProxyType[str, Noun]:
    """Return all concepts that may be disclosed in this role, by concept id."""
    return MappingProxyType({**drawn_nouns(role), **general_nouns(role)})


def render_prompt(object: str, relation: Relation, place: str) -> str:
    """Return the public prompt of three public concepts, e.g. "a fruit on a table" or "food near water".

    Raises:
        ValueError: If a concept is not public in its role.
    """
    phrases = []
    for role, concept in ((Role.OBJECT, object), (Role.PLACE, place)):
        noun = public_nouns(role).get(concept)
        if noun is None:
            raise ValueError(f"{concept!r} is not a public {role.value}")
        phrases.append(noun.phrase)
    return f"{phrases[0]} {relation.value} {phrases[1]}"
