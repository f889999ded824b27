"""Pairs of prompts of two devices: what they share, and who pairs with whom."""

from dataclasses import replace
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import group
from fedaigc.semantics.pairs import best, common, pairs
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from tests.small_atlas import small_atlas

PROMPTS = (
    "an apple on a table",
    "a dog near a river",
    "a pear on a table",
    "a lemon on a table",
    "a car on a road",
    "a horse near a river",
    "a cat near a river",
)


def said(prompt: str, taxonomy: Taxonomy) -> Disclosed | None:
    return disclose(parse(prompt, taxonomy), Policy.KIND, taxonomy)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from((*PROMPTS, "")), st.integers(0, 3)), max_size=12), st.randoms())
def test_every_task_is_in_one_pair_of_two_devices_or_alone(
    taxonomy: Taxonomy, waiting: list[tuple[str, int]], random: Random
) -> None:
    owners = {f"{number:02d}": device for number, (_, device) in enumerate(waiting)}
    signatures = {
        task: said(prompt, taxonomy) if prompt else None
        for task, (prompt, _) in zip(owners, waiting, strict=True)
    }
    found = pairs(signatures, owners, None, taxonomy)
    assert sorted(task for pair in found for task in pair.members) == sorted(owners)
    assert [pair.members[0] for pair in found] == sorted(pair.members[0] for pair in found)
    alone = [pair.members[0] for pair in found if len(pair.members) == 1]
    for pair in found:
        if len(pair.members) == 1:
            continue
        one, other = pair.members
        assert owners[one] != owners[other]
        # the two alone are grouped so
        (both,) = group({task: signatures[task] for task in pair.members}, taxonomy)  # type: ignore[misc]
        assert pair == both
    # no two that could share are both alone
    for place, one in enumerate(alone):
        for other in alone[place + 1 :]:
            told = signatures[one], signatures[other]
            apart = owners[one] != owners[other] and None not in told
            assert not apart or common(*told, None, taxonomy) is None  # type: ignore[arg-type]
    # in whatever order the signatures came
    shuffled = list(signatures)
    random.shuffle(shuffled)
    assert pairs({task: signatures[task] for task in shuffled}, owners, None, taxonomy) == found


def test_the_nearest_pair_first_and_no_device_with_itself(taxonomy: Taxonomy) -> None:
    texts = ("a dog near a river", "a car on a road", "a duck near a river", "a cat near a river")
    signatures = {str(number): said(text, taxonomy) for number, text in enumerate(texts)}

    def paired(devices: str, largest: float) -> list[tuple[str, ...]]:
        owners = {str(number): int(device) for number, device in enumerate(devices)}
        return [pair.members for pair in pairs(signatures, owners, None, taxonomy, largest)]

    # the duck would fit the dog too, and the cat is nearer
    assert paired("0123", 0.7) == [("0", "3"), ("1",), ("2",)]
    assert paired("0120", 0.7) == [("0", "2"), ("1",), ("3",)]
    assert paired("0120", 0.6) == [("0",), ("1",), ("2",), ("3",)]
    assert paired("0000", 0.7) == [("0",), ("1",), ("2",), ("3",)]


def test_the_deepest_common_node_decides(tmp_path: Path, small_model: Path, taxonomy: Taxonomy) -> None:
    atlas = Atlas.read(small_atlas(tmp_path, small_model))
    leaves = [node for node in range(len(atlas)) if atlas.children[node, 0] == -1]
    siblings = next((a, b) for a in leaves for b in leaves if a < b and atlas.parents[a] == atlas.parents[b])
    far = next(leaf for leaf in leaves if atlas.parents[leaf] != atlas.parents[siblings[0]])
    near, theirs, away = (NodeSignature(atlas.hash, node, 0) for node in (*siblings, far))
    shared = common(near, theirs, atlas, taxonomy)
    assert shared is not None
    assert shared.node == atlas.parents[siblings[0]]
    assert shared.prompt == atlas.captions[atlas.medoid(shared.node)]
    assert best(theirs, [("away", away), ("near", near)], atlas, taxonomy) == ("near", near)
    # one that may not be lifted, one of another atlas, and concepts
    alone = NodeSignature(atlas.hash, siblings[0], siblings[0])
    concepts = disclose(parse("an apple on a table", taxonomy), Policy.KIND, taxonomy)
    assert concepts is not None
    for other in (alone, replace(near, atlas="0" * 64), concepts):
        assert common(other, theirs, atlas, taxonomy) is None
    assert best(theirs, [("alone", alone)], atlas, taxonomy) is None
    # the same for a whole set: the siblings pair, and the other prompt of the same device is alone
    told = {"a": near, "b": alone, "c": theirs, "d": None}
    assert [pair.members for pair in pairs(told, {"a": 0, "b": 0, "c": 2, "d": 3}, atlas, taxonomy)] == [
        ("a", "c"),
        ("b",),
        ("d",),
    ]
