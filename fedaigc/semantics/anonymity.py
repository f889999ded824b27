"""Choose the general word that a device discloses for a concept, shared by at least m nouns of Scenes.

Counting the nouns *below* a word guarantees nothing. If every noun disclosed its nearest general word, "an
animal" would always mean the bird, because mammals disclose "a mammal". What counts is how many nouns
*produce* the word.

The table that maps nouns to words starts with every noun's nearest general word. Then, for k = 2, 3, ..., m:

1. Starting with the most specific word, a word that fewer than k nouns produce is merged into the word
   disclosed for the next general word above it.
2. If fewer than k nouns then produce the root, the most general of the other words are merged into it until k
   do. These words disclose the least.

There is one table per role and m, and everyone can compute it. Two properties hold:

- At least m nouns of Scenes produce every word in it. With m = 1 there is no guarantee.
- Tables are nested: the word for a larger m is a function of the word for a smaller m, and each is a function
  of the nearest public concept. Requests with several m or several policies reveal no more than the smallest
  m and the most disclosing policy alone. Intersecting the answers gains nothing.

References:
    Wong et al., "Minimality attack in privacy preserving data publishing", VLDB 2007 (the attack).
    Samarati, "Protecting respondents' identities in microdata release", TKDE 13 (6), 2001 (generalization
    along a hierarchy).
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from fedaigc.semantics.concepts.taxonomy import ROOT, Taxonomy
from fedaigc.semantics.concepts.vocabulary import Role, drawn_nouns, general_nouns, public_nouns


def nearest_public(concept: str, role: Role, taxonomy: Taxonomy) -> str:
    """Return the deepest public concept that equals the given concept or lies above it."""
    return taxonomy.lowest_common_ancestor(concept, among=public_nouns(role))


def general_word(concept: str, role: Role, minimum: int, taxonomy: Taxonomy) -> str | None:
    """Return the general word to disclose for a concept.

    A noun that Scenes does not draw gets the word of its nearest public concept, so it never has a word of
    its own.

    Args:
        concept: A concept id.
        role: The role of the concept in the prompt.
        minimum: m, the number of nouns of Scenes that must produce the word.
        taxonomy: The knowledge graph.

    Returns:
        The concept id of the word, or None if Scenes has fewer than `minimum` nouns in this role.

    Raises:
        ValueError: If `minimum` is below 1.
    """
    if minimum < 1:
        raise ValueError(f"the minimum must be at least 1, got {minimum}")
    if minimum > len(drawn_nouns(role)):
        return None
    return general_words(role, minimum, taxonomy)[nearest_public(concept, role, taxonomy)]


# large enough for the roles and every minimum that has a table
@lru_cache(maxsize=64)
def general_words(role: Role, minimum: int, taxonomy: Taxonomy) -> Mapping[str, str]:
    """Return the table of this module: public concept -> the general word that is disclosed for it.

    Args:
        role: The role of the concepts.
        minimum: m, from 1 to the number of nouns that Scenes has in this role.
        taxonomy: The knowledge graph.
    """
    if minimum == 1:
        nearest = {noun: _nearest_general(noun, role, taxonomy) for noun in public_nouns(role)}
        return MappingProxyType(nearest)
    words = dict(general_words(role, minimum - 1, taxonomy))
    for word in _specific_first(role, taxonomy):
        if words[word] == word != ROOT and len(_producers(word, words, role)) < minimum:
            _merge(word, words[_next_above(word, role, taxonomy)], words)
    for word in reversed(_specific_first(role, taxonomy)):
        if len(_producers(ROOT, words, role)) >= minimum:
            break
        if words[word] == word != ROOT:
            _merge(word, ROOT, words)
    return MappingProxyType(words)


def _producers(word: str, words: Mapping[str, str], role: Role) -> list[str]:
    """Return the nouns of Scenes for which this word is disclosed."""
    return [noun for noun in drawn_nouns(role) if words[noun] == word]


def _merge(word: str, into: str, words: dict[str, str]) -> None:
    words.update({noun: into for noun, own in words.items() if own == word})


def _nearest_general(noun: str, role: Role, taxonomy: Taxonomy) -> str:
    return taxonomy.lowest_common_ancestor(noun, among=general_nouns(role))


def _next_above(word: str, role: Role, taxonomy: Taxonomy) -> str:
    above = taxonomy.ancestors(word) & general_nouns(role).keys()
    return min(above, key=lambda general: (-taxonomy.depth(general), general))


def _specific_first(role: Role, taxonomy: Taxonomy) -> list[str]:
    return sorted(general_nouns(role), key=lambda word: (-taxonomy.depth(word), word))
