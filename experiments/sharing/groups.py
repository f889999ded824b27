"""Groups of prompts of Scenes that could share steps: of one kind at one place, or of one node of the default atlas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.default_atlas.captions import scenes_captions
from experiments.quality.setting import kind_of
from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, RELATIONS, Noun
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas

KIND, NODE = "kind and place", "atlas node"
LARGEST = 8
MIN_CAPTIONS = 8


@dataclass(frozen=True)
class PromptGroup:
    """Prompts of a group. The first one is finished; smaller groups are the first members.

    Attributes:
        object: The first member's object.
        place: The first member's place.
        kind: The general word of its object.
        members: LARGEST different prompts.
    """

    object: str
    place: str
    kind: str
    members: tuple[str, ...]


def draw_groups(how: str, atlas: Atlas, count: int, seed: int) -> list[PromptGroup]:
    """Draw groups of LARGEST members.

    KIND: objects of one kind at one place. They are different as long as the kind has objects, and in one relation;
    further members take another relation. NODE: captions of Scenes from the node that the first one discloses, or from
    the nearest node above it that has enough of them.
    """
    random = numpy_rng(seed, "groups", how)
    draw = _of_kind if how == KIND else _of_node
    return [draw(atlas, random) for _ in range(count)]


def _of_kind(_: Atlas, random: np.random.Generator) -> PromptGroup:
    taxonomy = Taxonomy.load()
    kinds: dict[str, list[Noun]] = {}
    for noun in OBJECT_NOUNS:
        kinds.setdefault(kind_of(noun, taxonomy).word, []).append(noun)
    enough = [noun for noun in OBJECT_NOUNS if len(kinds[kind_of(noun, taxonomy).word]) * 3 >= LARGEST]
    target = enough[int(random.integers(len(enough)))]
    kind = kind_of(target, taxonomy).word
    others = [noun for noun in kinds[kind] if noun != target]
    place = PLACE_NOUNS[int(random.integers(len(PLACE_NOUNS)))]
    nouns = [target, *(others[i] for i in random.permutation(len(others)))]
    relations = [RELATIONS[i] for i in random.permutation(len(RELATIONS))]
    prompts = [f"{noun.phrase} {relation} {place.phrase}" for relation in relations for noun in nouns]
    return PromptGroup(target.word, place.word, kind, tuple(prompts[:LARGEST]))


def _of_node(atlas: Atlas, random: np.random.Generator) -> PromptGroup:
    scenes = scenes_captions()
    known, at = frozenset(scenes), {caption: row for row, caption in enumerate(atlas.captions)}
    first = scenes[int(random.integers(len(scenes)))]
    node = atlas.disclosed(atlas.vectors[at[first]], MIN_CAPTIONS)
    assert node is not None
    while len(inside := [c for c in _captions(atlas, node) if c in known]) < LARGEST:
        node = atlas.parents[node]
    others = [caption for caption in inside if caption != first]
    chosen = [others[i] for i in random.permutation(len(others))[: LARGEST - 1]]
    number = scenes.index(first)
    noun = OBJECT_NOUNS[number // (len(RELATIONS) * len(PLACE_NOUNS))]
    place = PLACE_NOUNS[number % len(PLACE_NOUNS)]
    return PromptGroup(noun.word, place.word, kind_of(noun, Taxonomy.load()).word, (first, *chosen))


def _captions(atlas: Atlas, node: int) -> list[str]:
    return [atlas.captions[row] for row in atlas.members[node]]


def common_node(atlas: Atlas, prompts: Sequence[str]) -> int:
    """Return the deepest node that holds all of some captions of the atlas, and at least MIN_CAPTIONS of any."""
    at = {caption: row for row, caption in enumerate(atlas.captions)}
    ways = [atlas.way(atlas.vectors[at[prompt]]) for prompt in prompts]
    return max(
        node
        for node in ways[0]
        if atlas.counts[node] >= MIN_CAPTIONS and all(node in way for way in ways[1:])
    )
