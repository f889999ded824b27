"""What a device says of a prompt: how general the concepts are that leave it.

A signature holds enums and concept ids of the public vocabulary, and nothing of the prompt's own words; only
the policy `open`, the paper's mode for experiments, sends the prompt itself, in a type of its own.

What it protects. A public prompt is an object of Scenes in a relation to a place of Scenes. At least m
(`min_public_prompts`) objects produce the same signature at the same place, so even who knows the policy, m
and this code cannot tell the object apart from m - 1 others. Under `general` the same holds for the place.
Answers under several policies or several m cannot be intersected (`semantics.anonymity`), and the same prompt
always gives the same answer.

What it does not protect:

- Under `exact` and `kind` the place is disclosed as it is, by design: m does not count places. A place that
  is not in Scenes is disclosed by the nearest public word. If that is a general one, e.g. "water" for a lake,
  it says that the place is none of Scenes.
- The relation is always disclosed, and that there is a prompt, and when.
- m counts public prompts, not what people ask for. Prior knowledge ("she likes birds") makes a guess better
  than 1 in m, and so does a person who asks for the same kind of thing again and again.
- m = 1 promises nothing: "an animal" is then the bird, because the mammals say "a mammal".
- A task without a signature says that its prompt was not understood or has no place, or that m is larger than
  the vocabulary.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from fedaigc.bounds import (
    MAX_OPEN_SIGNATURE_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_SIGNATURE_CHARACTERS,
)
from fedaigc.semantics.anonymity import general_word, nearest_public
from fedaigc.semantics.concepts.parser import ParsedPrompt
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, public_nouns
from fedaigc.storage.bounded_json import read_json


class Policy(StrEnum):
    """How much of a prompt a device discloses. Each discloses the relation, none a modifier.

    OPEN: the prompt. The paper's mode, for experiments only; must be asked for by name. The shared steps of a
        group then run on one member's prompt, and its packets disclose it to the others, not to the server
        alone.
    EXACT: object and place by their nearest public concepts ("an apple on a table") if the minimum of public
        prompts is 1; with any other minimum the object as under KIND.
    KIND: the place by its nearest public concept, the object by a general word ("a fruit on a table"). The
        default: the place is layout, which the first, shared steps fix; the object's kind is decided late.
    GENERAL: both by general words ("a fruit on furniture").
    SILENT: nothing; every task runs alone.
    """

    OPEN = "open"
    EXACT = "exact"
    KIND = "kind"
    GENERAL = "general"
    SILENT = "silent"


# from the least that is disclosed to the most
LEAST_FIRST = (Policy.SILENT, Policy.GENERAL, Policy.KIND, Policy.EXACT, Policy.OPEN)


@dataclass(frozen=True)
class Signature:
    """What a device discloses of a prompt: concept ids of the public vocabulary, and enums.

    Raises ValueError for any other content.
    """

    object: str
    relation: Relation
    place: str
    policy: Policy

    def __post_init__(self) -> None:
        if not isinstance(self.relation, Relation) or not isinstance(self.policy, Policy):
            raise ValueError("a signature's relation and policy are enums")
        self._check()

    def _check(self) -> None:
        if self.policy in (Policy.OPEN, Policy.SILENT):
            raise ValueError(f"a signature of concepts cannot have the policy {self.policy.value!r}")
        # the values are not quoted: what is refused may be a prompt
        if self.object not in public_nouns(Role.OBJECT):
            raise ValueError("the object of a signature must be a public concept")
        if self.place not in public_nouns(Role.PLACE):
            raise ValueError("the place of a signature must be a public concept")

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Signature":
        """The inverse of `to_json`.

        Gives an `OpenSignature` when the text itself says that its policy is open. Raises ValueError for
        anything but JSON of exactly these keys with strings from the closed lists, and for text over 256
        characters (open ones: over 12,256).
        """
        fields = _strict_fields(text)
        if fields.get("policy") == Policy.OPEN:
            _check_keys(fields, OpenSignature)
            return OpenSignature(
                fields["object"],
                Relation(fields["relation"]),
                fields["place"],
                Policy.OPEN,
                fields["prompt"],
            )
        if len(text) > MAX_SIGNATURE_CHARACTERS:
            raise ValueError(
                f"a signature has at most {MAX_SIGNATURE_CHARACTERS} characters, got {len(text)}"
            )
        _check_keys(fields, Signature)
        return Signature(
            fields["object"], Relation(fields["relation"]), fields["place"], Policy(fields["policy"])
        )


@dataclass(frozen=True)
class OpenSignature(Signature):
    """The paper's mode: the prompt itself, with any concepts of the graph. For experiments only."""

    prompt: str

    def _check(self) -> None:
        if self.policy is not Policy.OPEN:
            raise ValueError(f"only the policy 'open' carries a prompt, not {self.policy.value!r}")
        if not 0 < len(self.prompt) <= MAX_PROMPT_CHARACTERS:
            raise ValueError(f"an open signature's prompt has 1 to {MAX_PROMPT_CHARACTERS} characters")
        graph = Taxonomy.load()
        if self.object not in graph or self.place not in graph:
            raise ValueError("the object and the place of a signature must be concepts of the graph")


def disclose(
    parsed: ParsedPrompt, policy: Policy, taxonomy: Taxonomy, min_public_prompts: int = 3
) -> Signature | None:
    """What the policy lets a device say of a prompt; None when the task runs alone.

    A prompt without a known object, relation and place runs alone. Unless the policy is OPEN, at least
    `min_public_prompts` objects of Scenes produce the signature's object, and under GENERAL as many places
    its place; if Scenes has fewer, nothing is disclosed. The beginning of this module says what that
    protects.

    Raises ValueError when min_public_prompts < 1.
    """
    if min_public_prompts < 1:
        raise ValueError(f"min_public_prompts must be at least 1, got {min_public_prompts}")
    if parsed.object is None or parsed.relation is None or parsed.place is None or policy is Policy.SILENT:
        return None
    if policy is Policy.OPEN:
        return OpenSignature(parsed.object, parsed.relation, parsed.place, policy, parsed.prompt)
    thing: str | None = nearest_public(parsed.object, Role.OBJECT, taxonomy)
    if policy is not Policy.EXACT or min_public_prompts > 1:
        thing = general_word(parsed.object, Role.OBJECT, min_public_prompts, taxonomy)
    place: str | None = nearest_public(parsed.place, Role.PLACE, taxonomy)
    if policy is Policy.GENERAL:
        place = general_word(parsed.place, Role.PLACE, min_public_prompts, taxonomy)
    if thing is None or place is None:
        return None
    return Signature(thing, parsed.relation, place, policy)


def says_all_of(one: Signature, other: Signature, taxonomy: Taxonomy) -> bool:
    """Whether who has `one` of a prompt learns nothing more from `other` of the same prompt.

    An open signature says all. Otherwise each concept of `one` must be, or stand below, that of `other`; with
    the same concepts the more disclosing policy says more.
    """
    if isinstance(one, OpenSignature) or isinstance(other, OpenSignature):
        return isinstance(one, OpenSignature)
    if one.relation is not other.relation:
        return False
    if (one.object, one.place) == (other.object, other.place):
        return LEAST_FIRST.index(one.policy) >= LEAST_FIRST.index(other.policy)
    return taxonomy.is_a(one.object, other.object) and taxonomy.is_a(one.place, other.place)


def _strict_fields(text: str) -> dict[str, Any]:
    fields = read_json(text, max_characters=MAX_OPEN_SIGNATURE_CHARACTERS, max_depth=1)
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("a signature is a JSON object of strings")
    return fields


def _check_keys(fields: Mapping[str, str], kind: type[Signature]) -> None:
    expected = set(kind.__dataclass_fields__)
    if set(fields) != expected:
        raise ValueError(f"a signature has the keys {sorted(expected)}, got {len(fields)} others or fewer")
