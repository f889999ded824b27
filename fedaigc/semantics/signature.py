"""What a device says of a prompt: how general the concepts are that leave it.

A signature holds enums and concept ids of the public vocabulary, and nothing of the prompt's own words; only
the policy `open`, the paper's mode for experiments, sends the prompt itself, in a type of its own.

What it protects, and what it does not. Before it sends, a device checks that at least m public prompts (the
objects x places of Scenes, in the disclosed relation) fit the signature. That bounds what the signature says,
not what can be inferred by who also knows the policy: all mammals of Scenes would be disclosed as "a mammal",
so among the objects of Scenes "an animal" points to the bird; what speaks against it is that prompts may name
other animals. Source of that attack: Wong et al., "Minimality attack in privacy preserving data publishing",
VLDB 2007.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from fedaigc.semantics.parser import MAX_PROMPT_CHARACTERS, ParsedPrompt
from fedaigc.semantics.public import Relation, Role, drawn_nouns, general_nouns, public_nouns
from fedaigc.semantics.taxonomy import ROOT, Taxonomy

# three enums and two ids take half of this
MAX_CHARACTERS = 256
# JSON writes a character outside the basic plane in twelve
MAX_OPEN_CHARACTERS = MAX_CHARACTERS + 12 * MAX_PROMPT_CHARACTERS


class Policy(StrEnum):
    """How much of a prompt a device discloses. Each discloses the relation, none a modifier.

    OPEN: the prompt. The paper's mode, for experiments only; must be asked for by name. The shared steps of a
        group then run on one member's prompt, and its packets disclose it to the others, not to the server
        alone.
    EXACT: object and place by their nearest public concepts, as Scenes draws them ("an apple on a table").
    KIND: the place so, the object by its nearest general word ("a fruit on a table"). The default: the place
        is layout, which the first, shared steps fix; the object's kind is decided late.
    GENERAL: both by their nearest general words ("a fruit on furniture").
    SILENT: nothing; every task runs alone.
    """

    OPEN = "open"
    EXACT = "exact"
    KIND = "kind"
    GENERAL = "general"
    SILENT = "silent"


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
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"a signature has at most {MAX_CHARACTERS} characters, got {len(text)}")
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

    A prompt without a known object, relation and place runs alone. Unless the policy is open, the signature
    is consistent with at least `min_public_prompts` public prompts: the object is generalised until it is,
    word by word up to the root, then the place; where even "a thing near a place" is not enough, nothing is
    disclosed. So with the default of 3, `exact` sends an object's own concept never, and with 1 always.

    Raises ValueError when min_public_prompts < 1.
    """
    if min_public_prompts < 1:
        raise ValueError(f"min_public_prompts must be at least 1, got {min_public_prompts}")
    if parsed.object is None or parsed.relation is None or parsed.place is None or policy is Policy.SILENT:
        return None
    if policy is Policy.OPEN:
        return OpenSignature(parsed.object, parsed.relation, parsed.place, policy, parsed.prompt)
    general = general_nouns(Role.OBJECT)
    thing = nearest(parsed.object, public_nouns(Role.OBJECT) if policy is Policy.EXACT else general, taxonomy)
    general = general_nouns(Role.PLACE)
    place = nearest(parsed.place, general if policy is Policy.GENERAL else public_nouns(Role.PLACE), taxonomy)
    while consistent_prompts(thing, place, taxonomy) < min_public_prompts:
        if thing != ROOT:
            thing = broader(thing, Role.OBJECT, taxonomy)
        elif place != ROOT:
            place = broader(place, Role.PLACE, taxonomy)
        else:
            return None
    return Signature(thing, parsed.relation, place, policy)


def nearest(concept: str, vocabulary: Mapping[str, object], taxonomy: Taxonomy) -> str:
    """The deepest concept of the vocabulary that is, or stands above, the given one."""
    return taxonomy.lowest_common_ancestor(concept, among=vocabulary)


def broader(concept: str, role: Role, taxonomy: Taxonomy) -> str:
    """The nearest general word strictly above a concept; ValueError for the root, above which is none."""
    above = taxonomy.ancestors(concept) & general_nouns(role).keys()
    if not above:
        raise ValueError(f"nothing public stands above {concept!r}")
    return min(above, key=lambda word: (-taxonomy.depth(word), word))


def consistent_prompts(object: str, place: str, taxonomy: Taxonomy) -> int:
    """How many public prompts fit: objects of Scenes below `object` times places of Scenes below `place`.

    The relation is disclosed as it is, so prompts in another one do not count.
    """
    things = sum(taxonomy.is_a(drawn, object) for drawn in drawn_nouns(Role.OBJECT))
    places = sum(taxonomy.is_a(drawn, place) for drawn in drawn_nouns(Role.PLACE))
    return things * places


def _strict_fields(text: str) -> dict[str, Any]:
    if len(text) > MAX_OPEN_CHARACTERS:
        raise ValueError(f"a signature has at most {MAX_OPEN_CHARACTERS} characters, got {len(text)}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a signature names each key once")
        return fields

    try:
        fields = json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError("a signature is a flat object") from error
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("a signature is a JSON object of strings")
    return fields


def _check_keys(fields: Mapping[str, str], kind: type[Signature]) -> None:
    expected = set(kind.__dataclass_fields__)
    if set(fields) != expected:
        raise ValueError(f"a signature has the keys {sorted(expected)}, got {len(fields)} others or fewer")
