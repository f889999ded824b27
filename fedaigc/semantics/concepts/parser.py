"""Parse a prompt on the device into object, relation and place.

The parts in brackets are skipped:

    [Draw a photo of a big, shiny] apple [with a leaf, lying] on [the edge of a wooden] table [at night]

The parser is a small grammar of English nouns and prepositions over the words of the knowledge graph. Parts
that it does not understand stay unknown, and the task then runs alone, so any text in any language gives a
result. If a prompt names several objects ("a cat and a dog"), the first is taken. A bare object ("an apple")
has no place, so its task runs alone too.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from fedaigc.bounds import MAX_PROMPT_CHARACTERS
from fedaigc.errors import UserError
from fedaigc.semantics.concepts import words
from fedaigc.semantics.concepts.senses import (
    BODY_OF_WATER,
    GEOLOGICAL_FORMATION,
    LAND,
    LOCATION,
    resolve,
)
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role

# length of the longest nouns that prompts use: "hot air balloon", "bottle of red wine"
MAX_NOUN_WORDS = 4
STOP = ","


@dataclass(frozen=True)
class ParsedPrompt:
    """The content of a prompt. It stays on the device, and its repr contains concepts only.

    Attributes:
        prompt: The prompt.
        object: Concept id of the object. None if it is unknown or absent.
        relation: The relation. None if there is none, or if the closed list does not contain it. The place is
            then None too.
        place: Concept id of the place. None if it is unknown or absent.
        modifiers: The other words of the two noun phrases.
    """

    prompt: str = field(repr=False)
    object: str | None
    relation: Relation | None
    place: str | None
    modifiers: tuple[str, ...] = field(repr=False)


class Part(StrEnum):
    """The parts of a prompt that a signature needs."""

    OBJECT = "object"
    RELATION = "relation"
    PLACE = "place"


@dataclass(frozen=True)
class Obstacle:
    """Why nothing can be disclosed of a prompt, and its task runs alone. It stays on the device.

    Attributes:
        part: The first part that was not understood.
        words: The words that stand in its place. Empty if there are none.
    """

    part: Part
    words: str = field(default="", repr=False)


@dataclass(frozen=True)
class _Noun:
    concept: str
    modifiers: tuple[str, ...]


@dataclass(frozen=True)
class _Reading:
    """What was found in a prompt; `obstacle` is None if all parts were."""

    thing: _Noun | None
    relation: Relation | None
    place: _Noun | None
    obstacle: Obstacle | None


def parse(prompt: str, taxonomy: Taxonomy) -> ParsedPrompt:
    """Parse a prompt.

    Raises:
        UserError: If the prompt is empty or has more than 1,000 characters.
    """
    found = _read(prompt, taxonomy)
    kept = tuple(word for noun in (found.thing, found.place) if noun for word in noun.modifiers)
    return ParsedPrompt(
        prompt,
        found.thing.concept if found.thing else None,
        found.relation,
        found.place.concept if found.place else None,
        kept,
    )


def obstacle(prompt: str, taxonomy: Taxonomy) -> Obstacle | None:
    """Return which words prevent that anything is disclosed of a prompt, or None if `parse` finds all its parts.

    Raises:
        UserError: As `parse`.
    """
    return _read(prompt, taxonomy).obstacle


def _read(prompt: str, taxonomy: Taxonomy) -> _Reading:
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise UserError(
            f"the prompt has {len(prompt):,} characters: shorten it to at most {MAX_PROMPT_CHARACTERS:,}"
        )
    if not prompt.strip():
        raise UserError('the prompt is empty: say what to draw, e.g. "an apple on a table"')
    tokens = _without_depiction(_tokens(prompt))
    if tokens[:1] == ["there"] and tokens[1:2] and tokens[1] in words.AUXILIARIES:
        tokens = tokens[2:]
    return _Reader(taxonomy).read(tokens)


def _tokens(prompt: str) -> list[str]:
    """Return words in lower case, with hyphens split. Every run of punctuation becomes STOP."""
    plain = unicodedata.normalize("NFKC", prompt).casefold().replace("’", "'")
    # "a rabbit-like cat" contains neither a rabbit nor a comparison
    plain = re.sub(r"[^\W_]+-(like|shaped|style|sized|colou?red)\b", "", plain)
    found = re.findall(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s'-]+", plain)
    return [token if re.match(r"\w", token) else STOP for token in found]


def _without_depiction(tokens: list[str]) -> list[str]:
    """Return the tokens after the first "photo of", if it precedes any relation."""
    for i, (token, following) in enumerate(pairwise(tokens)):
        if following == "of" and token in words.DEPICTIONS:
            return tokens[i + 2 :]
        if token in ("on", "near", "above"):
            break
    return tokens


def _phrase_at(
    tokens: Sequence[str], start: int, phrases: Iterable[tuple[str, ...]] = words.RELATIONS.keys()
) -> tuple[str, ...]:
    """Return the longest of the phrases that begin at `start`, or ()."""
    matching = (phrase for phrase in phrases if tuple(tokens[start : start + len(phrase)]) == phrase)
    return max(matching, key=len, default=())


def _plain(tokens: Iterable[str]) -> tuple[str, ...]:
    return tuple(token for token in tokens if token != STOP and token not in words.ARTICLES)


def _last_word(tokens: Iterable[str]) -> str:
    return next(reversed(_plain(tokens)), "")


def singulars(word: str) -> list[str]:
    """Return the word and its possible singulars, in the order in which to look them up."""
    found = [word]
    if word in words.IRREGULAR_PLURALS:
        return [words.IRREGULAR_PLURALS[word], word]
    for plural, singular in words.PLURAL_ENDINGS:
        if len(word) > len(plural) + 1 and word.endswith(plural) and not word.endswith("ss"):
            found.append(word[: -len(plural)] + singular)
    return found


class _Reader:
    """Finds nouns and relations in the tokens of one prompt."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy

    def read(self, tokens: list[str]) -> _Reading:
        opening = _phrase_at(tokens, 0)
        if opening:  # "on a table, an apple" names the place first
            tokens = self._place_last(tokens, opening)
        end = self._end_of_phrase(tokens, 0, Role.OBJECT)
        thing, after = self._noun(tokens, 0, end, Role.OBJECT)
        relation, place, problem = self._relation(tokens, after)
        if thing is None:
            problem = Obstacle(Part.OBJECT, _last_word(tokens[:end]))
        return _Reading(thing, relation, place, problem)

    def _place_last(self, tokens: list[str], opening: tuple[str, ...]) -> list[str]:
        """Rearrange "on a table there is an apple". Tokens that cannot be divided are returned unchanged."""
        for i in range(len(opening) + 1, len(tokens)):
            if tokens[i] == STOP or tokens[i] in words.VERBS or tokens[i] == "there":
                rest = [token for token in tokens[i:] if token != "there"]
                while rest and (rest[0] == STOP or rest[0] in words.VERBS):
                    rest.pop(0)
                return [*rest, *tokens[:i]]
        return tokens

    def _known(self, phrase: Sequence[str], role: Role) -> str | None:
        """Return the concept of a noun of one or more words, in the singular or the plural."""
        for last in singulars(phrase[-1]):
            concept = resolve(" ".join((*phrase[:-1], last)), role, self._taxonomy)
            if concept is not None:
                return concept
        return None

    def _is_noun(self, word: str) -> bool:
        return self._known([word], Role.OBJECT) is not None

    def _ends_phrase(self, tokens: Sequence[str], i: int, start: int) -> bool:
        """Return whether the token cannot belong to a noun phrase that began at `start`."""
        token = tokens[i]
        if token in words.CONJUNCTIONS or token in words.DETAILS or token in words.UNKNOWN_RELATIONS:
            return True
        if _phrase_at(tokens, i):
            return True
        if i == start or tokens[i - 1] in words.ARTICLES or not self._is_noun(tokens[i - 1]):
            return token in words.AUXILIARIES
        # after a noun, "stands" is not furniture, and "sleeping" and "perched" are not nouns
        if token in words.VERBS or token in words.TRAILING:
            return True
        if token.endswith("ed"):  # "a cup filled with tea", but "a snow covered mountain"
            modifies = i + 1 < len(tokens) and self._is_noun(tokens[i + 1])
            return not modifies and not self._is_noun(token)
        return token.endswith("ing") and not self._is_noun(token)

    def _end_of_phrase(self, tokens: Sequence[str], start: int, role: Role) -> int:
        for i in range(start, len(tokens)):
            if self._ends_phrase(tokens, i, start):
                return i
            # "on a table, studio light": a comma after a known place ends the phrase
            if role is Role.PLACE and tokens[i] == STOP and self._head(tokens[start:i], role):
                return i
        return len(tokens)

    def _noun(self, tokens: Sequence[str], start: int, end: int, role: Role) -> tuple[_Noun | None, int]:
        """Return the head of the noun phrase tokens[start:end], and where the search continues."""
        skipped = words.MEASURES if role is Role.OBJECT else words.PARTS
        phrase = tokens[start:end]
        measured = bool(phrase) and not skipped.isdisjoint(singulars(phrase[-1]))
        if measured and tokens[end : end + 1] == ["of"]:
            following = self._end_of_phrase(tokens, end + 1, role)
            noun, after = self._noun(tokens, end + 1, following, role)
            if noun:
                return _Noun(noun.concept, (*_plain(phrase), *noun.modifiers)), after
        # "a big, red apple", "an apple, red and shiny", "studio light, an apple": take the last part with a
        # known noun, preferably one with an article
        parts: list[list[str]] = [[]]
        for token in phrase:
            if token == STOP:
                parts.append([])
            else:
                parts[-1].append(token)
        parts.sort(key=lambda part: bool(words.ARTICLES.intersection(part)))
        for part in reversed(parts):
            noun = self._head(part, role)
            if noun:
                others = _plain([word for other in parts if other is not part for word in other])
                return _Noun(noun.concept, (*others, *noun.modifiers)), end
        return None, end

    def _head(self, part: Sequence[str], role: Role) -> _Noun | None:
        """Return the longest known noun at the end of a phrase: in English the last noun is the head."""
        while part and part[-1] in words.TRAILING:
            part = part[:-1]
        for length in range(min(MAX_NOUN_WORDS, len(part)), 0, -1):
            concept = self._known(part[-length:], role)
            if concept is not None and part[-1] not in words.ARTICLES:
                rest = part[:-length]
                return _Noun(concept, _plain(rest))
        return None

    def _relation(
        self, tokens: Sequence[str], start: int
    ) -> tuple[Relation | None, _Noun | None, Obstacle | None]:
        """Return the first relation and its place, without a relation if the closed list does not contain it.

        The third value says which of both is missing; None if neither is.
        """
        i, problem = start, Obstacle(Part.PLACE)
        while i < len(tokens):
            unknown = _phrase_at(tokens, i, words.UNKNOWN_RELATION_PHRASES)
            preposition = _phrase_at(tokens, i)
            if unknown or (not preposition and tokens[i] in words.UNKNOWN_RELATIONS):
                return None, None, Obstacle(Part.RELATION, " ".join(unknown or (tokens[i],)))
            if not preposition:
                i += 1
                continue
            begin = i + len(preposition)
            stop = self._end_of_phrase(tokens, begin, Role.PLACE)
            place, end = self._noun(tokens, begin, stop, Role.PLACE)
            relation = self._meant(preposition, place)
            missing = Obstacle(Part.PLACE, _last_word(tokens[begin:stop]))
            if relation is not None:
                return relation, place, None if place else missing
            if not problem.words:
                problem = Obstacle(Part.RELATION, " ".join(preposition)) if place else missing
            i = max(end, i + 1)
        return None, None, problem

    def _meant(self, preposition: tuple[str, ...], place: _Noun | None) -> Relation | None:
        """Return the relation, or None if the preposition is ambiguous and begins something else here."""
        relation = words.RELATIONS[preposition]
        if len(preposition) > 1 or preposition[0] not in words.AMBIGUOUS:
            return relation
        # "in a field" means ON, but the closed list has no relation for "in a box"
        if place is None or (preposition == ("in",) and not self._is_open_air(place.concept)):
            return None
        return relation

    def _is_open_air(self, concept: str) -> bool:
        open_air = (LOCATION, GEOLOGICAL_FORMATION, BODY_OF_WATER, LAND)
        return any(self._taxonomy.is_a(concept, kind) for kind in open_air)
