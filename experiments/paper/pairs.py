"""Prompt pairs: a member that finishes its task, and another one, whose prompt the shared steps may run on."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.quality.setting import kind_of
from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, RELATIONS, Noun
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.grouping import group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

# "open" is the paper's: one member's prompt for all. "kind" is ours: the group's public prompt.
MODES = ("open", "kind")
# what the two prompts have in common, from near to far
DISTANCES = ("kind and place", "place", "kind", "nothing")


@dataclass(frozen=True)
class Pair:
    """The target's object and place as the judge names them, both prompts, and the public prompt of both."""

    object: str
    place: str
    own: str
    other: str
    group: str

    def shared_prompt(self, mode: str) -> str:
        """Return the prompt that the shared steps run on."""
        return {"open": self.other, "kind": self.group}[mode]


def draw_pairs(count: int, seed: int, distance: str = DISTANCES[0], *, minimum: int = 3) -> list[Pair]:
    """Draw different pairs at one of `DISTANCES`. The objects of a pair always differ.

    Args:
        count: Number of pairs.
        seed: Seed of the draw.
        distance: What the prompts of a pair have in common.
        minimum: How many objects must produce a disclosed word, as in `disclose`. It affects only the group's
            prompt. With 1, every object discloses its nearest general word.
    """
    taxonomy = Taxonomy.load()
    random = numpy_rng(seed, "paper", distance)

    def one(items: Sequence[Noun]) -> Noun | None:
        return items[int(random.integers(len(items)))] if items else None

    def build() -> Pair | None:
        target, place = OBJECT_NOUNS[int(random.integers(len(OBJECT_NOUNS)))], one(PLACE_NOUNS)
        alike = distance in ("kind and place", "kind")
        same_kind = kind_of(target, taxonomy)
        other = one(
            [
                noun
                for noun in OBJECT_NOUNS
                if noun != target and (kind_of(noun, taxonomy) == same_kind) == alike
            ]
        )
        here = distance in ("kind and place", "place")
        other_place = place if here else one([noun for noun in PLACE_NOUNS if noun != place])
        if other is None or place is None or other_place is None:
            return None
        relation = RELATIONS[int(random.integers(len(RELATIONS)))]
        own = f"{target.phrase} {relation} {place.phrase}"
        theirs = f"{other.phrase} {relation} {other_place.phrase}"
        signatures = {
            str(i): disclose(parse(text, taxonomy), Policy.KIND, taxonomy, minimum)
            for i, text in enumerate((own, theirs))
        }
        # an unbounded distance groups any two tasks, since far pairs should show the effect
        (both,) = group(signatures, taxonomy, max_distance=float("inf"))
        return Pair(target.word, place.word, own, theirs, both.prompt)

    found: list[Pair] = []
    while len(found) < count:
        pair = build()
        if pair is not None and pair not in found:
            found.append(pair)
    return found
