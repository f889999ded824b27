"""From signatures to groups: any order gives the same, within the distance, with a prompt true of all members."""

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, public_nouns, render_prompt
from fedaigc.semantics.grouping import MAX_DISTANCE, Group, distance, group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import OpenSignature, Signature, disclose
from tests.semantics.conftest import law

MAMMAL, ANIMAL, PLANT, FRUIT, OBJECT = "n01864419", "n00015568", "n00017402", "n07721676", "n00022119"
TABLE, DESK, BED, FURNITURE = "n04386330", "n03184367", "n02821967", "n03410635"


def signatures(prompts: Iterable[str], policy: Policy = Policy.KIND) -> dict[str, Any]:
    taxonomy = Taxonomy.load()
    return {f"t{i}": disclose(parse(prompt, taxonomy), policy, taxonomy) for i, prompt in enumerate(prompts)}


def closed(thing: str, place: str, relation: Relation = Relation.ON) -> Signature:
    return Signature(thing, relation, place, Policy.KIND)


disclosed = st.builds(
    Signature,
    st.sampled_from(sorted(public_nouns(Role.OBJECT))),
    st.sampled_from(Relation),
    st.sampled_from(sorted(public_nouns(Role.PLACE))),
    st.sampled_from([Policy.EXACT, Policy.KIND, Policy.GENERAL]),
)
opened = st.builds(
    OpenSignature,
    st.sampled_from([noun.concept for noun in OBJECT_NOUNS]),
    st.sampled_from(Relation),
    st.sampled_from([noun.concept for noun in PLACE_NOUNS]),
    st.just(Policy.OPEN),
    st.sampled_from(["a prompt", "another prompt"]),
)
task_ids = st.text("0123456789abcdef", min_size=16, max_size=16)
queues = st.dictionaries(task_ids, st.none() | disclosed | opened, max_size=12)


@law
@given(queues, st.sampled_from([0.0, 0.25, 1.0, 20.0]), st.sampled_from([0.0, 1.0, 10.0]))
def test_laws_of_groups(queue: Any, max_distance: float, place_weight: float) -> None:
    taxonomy = Taxonomy.load()
    groups = group(queue, taxonomy, max_distance, place_weight)
    # they partition the tasks
    members = [task_id for found in groups for task_id in found.members]
    assert sorted(members) == sorted(queue)
    for found in groups:
        said = [queue[task_id] for task_id in found.members]
        if None in said:
            assert found == Group(found.members, "", None)
            assert len(said) == 1
            continue
        assert found.signature is not None
        for a in said:
            assert a.relation == found.signature.relation
            assert isinstance(a, OpenSignature) == isinstance(found.signature, OpenSignature)
            for b in said:
                assert distance(a, b, taxonomy, place_weight) <= max_distance + 1e-9
        if isinstance(found.signature, OpenSignature):
            assert found.prompt in {a.prompt for a in said}
            continue
        # the group prompt is true of every member, and made of public words
        assert all(taxonomy.is_a(a.object, found.signature.object) for a in said)
        assert all(taxonomy.is_a(a.place, found.signature.place) for a in said)
        assert found.prompt == render_prompt(
            found.signature.object, found.signature.relation, found.signature.place
        )


@law
@given(queues, st.randoms(use_true_random=False))
def test_order_of_arrival_changes_nothing(queue: Any, shuffler: random.Random) -> None:
    taxonomy = Taxonomy.load()
    items = list(queue.items())
    shuffler.shuffle(items)
    assert group(dict(items), taxonomy) == group(queue, taxonomy)


@law
@given(queues)
def test_equal_signatures_share_a_group(queue: Any) -> None:
    taxonomy = Taxonomy.load()
    home = {task_id: i for i, found in enumerate(group(queue, taxonomy, 0)) for task_id in found.members}
    for a, said in queue.items():
        for b, other in queue.items():
            if said is not None and said == other:
                assert home[a] == home[b]


@law
@given(disclosed, disclosed, st.sampled_from([0.0, 1.0, 10.0]))
def test_distance_is_symmetric_and_zero_for_the_same(a: Any, b: Any, place_weight: float) -> None:
    taxonomy = Taxonomy.load()
    assert distance(a, b, taxonomy, place_weight) == distance(b, a, taxonomy, place_weight) >= 0
    assert distance(a, a, taxonomy, place_weight) == 0


def test_distances_by_hand(taxonomy: Taxonomy) -> None:
    # depths: animal 7, mammal 10, plant 7, physical entity 2 (their lowest common public word: "a thing")
    assert distance(closed(MAMMAL, DESK), closed(ANIMAL, DESK), taxonomy) == pytest.approx(1 - 14 / 17)
    assert distance(closed(PLANT, DESK), closed(ANIMAL, DESK), taxonomy) == pytest.approx(1 - 4 / 14)
    # table 9, desk 10, a kind of table: 10 (1 - 18/19)
    assert distance(closed(FRUIT, DESK), closed(FRUIT, TABLE), taxonomy) == pytest.approx(10 * (1 - 18 / 19))
    # open: bird 10, dog 14, vertebrate 9
    bird, dog = (
        OpenSignature(noun.concept, Relation.ON, DESK, Policy.OPEN, noun.phrase)
        for noun in OBJECT_NOUNS
        if noun.word in ("bird", "dog")
    )
    assert distance(bird, dog, taxonomy) == pytest.approx(1 - 18 / 24) == MAX_DISTANCE


def test_prompts_of_the_paper(taxonomy: Taxonomy) -> None:
    prompts = ["an apple on a table", "a lemon on a table", "a bird on the desk", "a dog on the desk"]
    prompts += ["a tree near a river", "a cup on a book", "a shiny zorblax on a table"]
    queue = {
        f"t{i}": disclose(parse(prompt, taxonomy), Policy.KIND, taxonomy, min_public_prompts=1)
        for i, prompt in enumerate(prompts)
    }
    assert [(found.members, found.prompt) for found in group(queue, taxonomy)] == [
        (("t0", "t1"), "a fruit on a table"),
        (("t2", "t3"), "an animal on a desk"),
        (("t4",), "a plant near a river"),
        (("t5",), "an object on a book"),
        (("t6",), ""),
    ]
    # Scenes has one bird: by default it is no "animal", which would name it, and shares with other things
    groups = group(signatures(prompts), taxonomy)
    assert [(found.members, found.prompt) for found in groups[1:4]] == [
        (("t2",), "a thing on a desk"),
        (("t3",), "a mammal on a desk"),
        (("t4",), "a plant near a river"),
    ]


def test_open_groups_share_one_members_prompt(taxonomy: Taxonomy) -> None:
    prompts = ["a shiny apple on a table", "a lemon on a table", "a dog on a table", "a cat on a table"]
    groups = group(signatures(prompts, Policy.OPEN), taxonomy)
    assert [found.members for found in groups] == [("t0", "t1"), ("t2", "t3")]
    assert groups[0].prompt in prompts[:2]
    assert groups[0].signature is not None
    assert groups[0].signature.policy is Policy.OPEN


def test_open_and_closed_never_share(taxonomy: Taxonomy) -> None:
    queue = signatures(["an apple on a table"]) | {
        "u": disclose(parse("an apple on a table", taxonomy), Policy.OPEN, taxonomy)
    }
    assert [found.members for found in group(queue, taxonomy, max_distance=100)] == [("t0",), ("u",)]


def test_places_meet_when_they_weigh_less(taxonomy: Taxonomy) -> None:
    queue = {"a": closed(FRUIT, DESK), "b": closed(FRUIT, BED)}
    assert len(group(queue, taxonomy)) == 2
    # desk and bed meet at furniture, 10, 10 and 8 deep: 0.2 apart
    (found,) = group(queue, taxonomy, place_weight=1)
    assert found.prompt == "a fruit on furniture"
    assert found.signature is not None
    assert found.signature.place == FURNITURE


def test_complete_linkage_does_not_chain(taxonomy: Taxonomy) -> None:
    # vehicle - object 0.17, object - device 0.17, vehicle - device 0.29: one pair, not all three
    queue = {"a": closed("n03105141", DESK), "b": closed(OBJECT, DESK), "c": closed("n03187746", DESK)}
    sizes = sorted(len(found.members) for found in group(queue, taxonomy))
    assert sizes == [1, 2]


def test_groups_do_not_depend_on_task_ids(taxonomy: Taxonomy) -> None:
    said = signatures(["a car on a road", "a cup on a road", "a dog on a road", "a bird on a road"]).values()

    def shape(ids: list[str]) -> set[frozenset[int]]:
        return {
            frozenset(ids.index(task_id) for task_id in found.members)
            for found in group(dict(zip(ids, said, strict=True)), taxonomy)
        }

    assert shape(["a", "b", "c", "d"]) == shape(["d", "c", "b", "a"]) == shape(["c", "a", "d", "b"])


def test_regrouping_adds_tasks_as_they_come(taxonomy: Taxonomy) -> None:
    queue = signatures(["an apple on a table", "a dog on a desk"])
    before = group(queue, taxonomy)
    later = group(
        queue | {"t9": disclose(parse("a pear on a table", taxonomy), Policy.KIND, taxonomy)}, taxonomy
    )
    assert [found.members for found in before] == [("t0",), ("t1",)]
    assert [found.members for found in later] == [("t0", "t9"), ("t1",)]


def test_no_tasks_no_groups_and_no_negative_distance(taxonomy: Taxonomy) -> None:
    assert group({}, taxonomy) == []
    with pytest.raises(ValueError, match="expected at least 0"):
        group({}, taxonomy, max_distance=-1)
