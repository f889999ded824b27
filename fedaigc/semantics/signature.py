"""A signature: the part of a prompt that a device discloses, as general concepts.

A signature contains enums and concept ids of the public vocabulary, and none of the prompt's own words. Only
the policy `open`, the paper's mode for experiments, sends the prompt itself, in a separate type.

Protected. A public prompt is an object of Scenes in a relation to a place of Scenes. At least m
(`min_public_prompts`) objects produce the same signature at the same place. An observer who knows the policy,
m and this code therefore cannot distinguish the object from m - 1 others. Under `general` the same holds for
the place. Answers under several policies or several m cannot be intersected (`semantics.anonymity`), and the
same prompt always gives the same answer.

Not protected:

- Under `exact` and `kind` the place is disclosed by design: m does not count places. A place that is not in
  Scenes is disclosed by the nearest public word. If that word is general, e.g. "water" for a lake, it reveals
  that the place is not in Scenes.
- The relation, the existence of a prompt and its time are always disclosed.
- m counts public prompts, not how often people request them. Prior knowledge ("she likes birds") makes a
  guess better than 1 in m, and so do repeated requests by one person for the same kind of thing.
- m = 1 guarantees nothing: "an animal" then means the bird, because mammals disclose "a mammal".
- A task without a signature reveals that its prompt was not understood or has no place, or that m is larger
  than the vocabulary.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedaigc.bounds import (
    MAX_OPEN_SIGNATURE_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_SIGNATURE_CHARACTERS,
)
from fedaigc.semantics.anonymity import general_word, general_words, nearest_public
from fedaigc.semantics.concepts.parser import ParsedPrompt
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, public_nouns, render_prompt
from fedaigc.semantics.policy import LEAST_FIRST, Policy
from fedaigc.storage.bounded_json import read_json


@dataclass(frozen=True)
class Signature:
    """The part of a prompt that a device discloses: concept ids of the public vocabulary, and enums.

    Attributes:
        object: Concept id of the object.
        relation: How the object stands to the place.
        place: Concept id of the place.
        policy: The policy under which the signature was disclosed.

    Raises:
        ValueError: If the content is invalid.
    """

    object: str
    relation: Relation
    place: str
    policy: Policy

    def __post_init__(self) -> None:
        if not isinstance(self.relation, Relation) or not isinstance(self.policy, Policy):
            raise ValueError("the relation and the policy of a signature must be enums")
        self._check()

    def _check(self) -> None:
        if self.policy in (Policy.OPEN, Policy.SILENT):
            raise ValueError(f"a signature of concepts cannot have the policy {self.policy.value!r}")
        # do not quote the values: a refused value may be a prompt
        if self.object not in public_nouns(Role.OBJECT):
            raise ValueError("the object of a signature must be a public concept")
        if self.place not in public_nouns(Role.PLACE):
            raise ValueError("the place of a signature must be a public concept")

    @property
    def words(self) -> str:
        """What is disclosed, in words: for example "a fruit on a table"."""
        return render_prompt(self.object, self.relation, self.place)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no blanks."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Signature":
        """Parse the output of `to_json`.

        Returns:
            The signature, as an `OpenSignature` if the text states the policy open.

        Raises:
            ValueError: If the text is not a JSON object of exactly these keys, with strings from the closed
                lists, or if it is longer than 256 characters (12,256 for open signatures).
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
                f"the signature has {len(text)} characters: expected at most {MAX_SIGNATURE_CHARACTERS}"
            )
        _check_keys(fields, Signature)
        return Signature(
            fields["object"], Relation(fields["relation"]), fields["place"], Policy(fields["policy"])
        )


@dataclass(frozen=True)
class OpenSignature(Signature):
    """The paper's mode: the prompt itself, with any concepts of the graph. For experiments only.

    Attributes:
        prompt: The prompt.
    """

    prompt: str

    @property
    def words(self) -> str:
        """The prompt."""
        return self.prompt

    def _check(self) -> None:
        if self.policy is not Policy.OPEN:
            raise ValueError(
                f"a signature with a prompt must have the policy 'open', not {self.policy.value!r}"
            )
        if not 0 < len(self.prompt) <= MAX_PROMPT_CHARACTERS:
            raise ValueError(
                f"the prompt of an open signature must have 1 to {MAX_PROMPT_CHARACTERS} characters"
            )
        graph = Taxonomy.load()
        if self.object not in graph or self.place not in graph:
            raise ValueError("the object and the place of a signature must be concepts of the graph")


def disclose(
    parsed: ParsedPrompt, policy: Policy, taxonomy: Taxonomy, min_public_prompts: int = 3
) -> Signature | None:
    """Return what the policy discloses of a prompt, or None if the task runs alone.

    A prompt without a known object, relation and place runs alone. Unless the policy is OPEN, at least
    `min_public_prompts` objects of Scenes produce the signature's object, and under GENERAL as many places
    produce its place. If Scenes has fewer, nothing is disclosed. The module documentation states what this
    protects.

    Args:
        parsed: The parsed prompt.
        policy: The policy.
        taxonomy: The knowledge graph.
        min_public_prompts: The minimum m.

    Raises:
        ValueError: If `min_public_prompts` is below 1.
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


def signature_bits(signature: Signature, min_public_prompts: int, taxonomy: Taxonomy) -> float:
    """Return how many bits a signature tells about its prompt at most.

    This is log2 of the number of different signatures under its policy and minimum, a bound on what it tells on
    average, whatever was known before. A prompt that is sent itself counts 8 bits a byte.

    Args:
        signature: The signature.
        min_public_prompts: The minimum m under which it was disclosed.
        taxonomy: The knowledge graph.
    """
    if isinstance(signature, OpenSignature):
        return 8.0 * len(signature.prompt.encode("utf-8", "surrogatepass"))

    def words(role: Role, *, general: bool) -> int:
        if not general:
            return len(public_nouns(role))
        return len(set(general_words(role, min_public_prompts, taxonomy).values()))

    exact = signature.policy is Policy.EXACT and min_public_prompts == 1
    objects = words(Role.OBJECT, general=not exact)
    places = words(Role.PLACE, general=signature.policy is Policy.GENERAL)
    return math.log2(objects * len(Relation) * places)


def says_all_of(one: Signature, other: Signature, taxonomy: Taxonomy) -> bool:
    """Return whether `other` reveals nothing about a prompt beyond `one`, for signatures of the same prompt.

    An open signature reveals everything. Otherwise each concept of `one` must equal that of `other` or lie
    below it. With the same concepts, the more disclosing policy reveals more.
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
        raise ValueError("invalid signature: expected a JSON object of strings")
    return fields


def _check_keys(fields: Mapping[str, str], kind: type[Signature]) -> None:
    expected = set(kind.__dataclass_fields__)
    if set(fields) != expected:
        raise ValueError(f"invalid signature with {len(fields)} keys: expected {sorted(expected)}")
