"""Nodes as signatures: what may be sent, and groups of k devices that every member allows."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser import node_disclosure
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_groups import expected_handoff, node_groups
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, distance
from fedaigc.semantics.disclosed import read_signature
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from tests.semantics.denoiser.test_atlas import atlas_of
from tests.semantics.denoiser.test_calibration import calibration
from tests.semantics.denoiser.test_sharing_distance import plan_of

ATLAS = atlas_of(0)


def signed(atlas: Atlas, row: int, up: int) -> NodeSignature:
    way = atlas.way(atlas.vectors[row])
    return NodeSignature(atlas.hash, way[-1], way[max(0, len(way) - 1 - up)])


@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 6), st.integers(0, 4)), max_size=25),
    st.integers(2, 4),
)
def test_every_group_has_k_devices_and_is_allowed_by_all(
    tasks: list[tuple[int, int, int]], minimum: int
) -> None:
    signatures = {f"{i:02d}": signed(ATLAS, row, up) for i, (row, up, _) in enumerate(tasks)}
    owners = {f"{i:02d}": owner for i, (_, _, owner) in enumerate(tasks)}
    groups = node_groups(signatures, owners, ATLAS, minimum)
    assert sorted(task for group in groups for task in group.members) == sorted(signatures)
    for group in groups:
        if len(group.members) == 1:
            assert group.prompt == ""
            continue
        assert len({owners[task] for task in group.members}) >= minimum
        nodes = [n for n in range(len(ATLAS)) if ATLAS.captions[ATLAS.medoid(n)] == group.prompt]
        for task in group.members:
            row, up, _ = tasks[int(task)]
            way = ATLAS.way(ATLAS.vectors[row])
            assert set(nodes) & set(way[max(0, len(way) - 1 - up) :])
    # no node is left at which k devices could still meet
    alone = [group.members[0] for group in groups if len(group.members) == 1]
    for node in range(len(ATLAS)):
        there = set()
        for task in alone:
            row, up, owner = tasks[int(task)]
            way = ATLAS.way(ATLAS.vectors[row])
            if node in way[max(0, len(way) - 1 - up) :]:
                there.add(owner)
        assert len(there) < minimum


def test_small_groups_nearby_are_weighed_against_a_large_one() -> None:
    """Two pairs that take 6 steps each save 12; all four at the root save three times what they take there.

    At an equal saving the pairs stay at their deeper nodes.
    """
    one, two = ATLAS.children[0].tolist()
    signatures = {
        task: NodeSignature(ATLAS.hash, node, 0)
        for task, node in (("a", one), ("b", one), ("c", two), ("d", two))
    }
    owners = {"a": 0, "b": 1, "c": 2, "d": 3}
    for at_root, expected in (
        (2, [("a", "b"), ("c", "d")]),
        (4, [("a", "b"), ("c", "d")]),
        (5, [("a", "b", "c", "d")]),
        (6, [("a", "b", "c", "d")]),
    ):
        groups = node_groups(signatures, owners, ATLAS, 2, lambda told, node, k=at_root: 6 if node else k)  # type: ignore[misc]
        assert [group.members for group in groups] == expected
        assert [group.node for group in groups] == ([one, two] if len(expected) == 2 else [0])


def test_a_task_that_must_stay_below_does_not_break_its_group_up() -> None:
    one = int(ATLAS.children[0][0])
    two = int(ATLAS.children[0][1])
    signatures = {
        "a": NodeSignature(ATLAS.hash, one, one),
        "b": NodeSignature(ATLAS.hash, one, one),
        "c": NodeSignature(ATLAS.hash, two, 0),
        "d": NodeSignature(ATLAS.hash, one, 0),
        "e": NodeSignature(ATLAS.hash, two, two),
    }
    owners = {task: place for place, task in enumerate(signatures)}
    groups = node_groups(signatures, owners, ATLAS, 2)
    assert sorted(group.members for group in groups) == [("a", "b", "d"), ("c", "e")]


def test_what_a_task_would_take_is_expected_from_public_captions() -> None:
    measured = calibration()
    ladder = measured.handoffs
    expected = expected_handoff(ATLAS, measured, 0.3, ladder)
    for node in ATLAS.way(ATLAS.vectors[0]):
        told = ATLAS.way(ATLAS.vectors[0])[-1]
        caption = ATLAS.vectors[ATLAS.medoid(node)]
        taken = sorted(
            max(
                (k for k in ladder if measured.last_handoff(distance(ATLAS.vectors[row], caption), 0.3) >= k),
                default=0,
            )
            for row in ATLAS.members[told]
        )
        middle = (taken[(len(taken) - 1) // 2] + taken[len(taken) // 2]) // 2
        assert expected(told, node) == max(ladder[0], middle)


def test_groups_do_not_depend_on_the_order_of_arrival() -> None:
    signatures = {str(i): signed(ATLAS, i, i % 4) for i in range(10, 40)}
    owners = {task: int(task) % 7 for task in signatures}
    turned = dict(reversed(signatures.items()))
    assert node_groups(signatures, owners, ATLAS) == node_groups(turned, owners, ATLAS)


def test_what_does_not_belong_to_the_atlas_runs_alone() -> None:
    other = atlas_of(1)
    way = ATLAS.way(ATLAS.vectors[0])
    beside = next(n for n in range(1, len(ATLAS)) if n not in way and n < way[-1])
    signatures = {
        "a": signed(other, 0, 9),
        "b": signed(ATLAS, 0, 0),
        # another atlas says where its nodes lie; here the highest node is not on the way
        "c": NodeSignature(ATLAS.hash, way[-1], beside),
        "d": NodeSignature(ATLAS.hash, len(ATLAS) + 5, 0),
        "e": None,
    }
    groups = node_groups(signatures, {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}, ATLAS)
    assert [group.members for group in groups] == [("a",), ("b", "c"), ("d",), ("e",)]
    with pytest.raises(ValueError, match="at least 2"):
        node_groups(signatures, {}, ATLAS, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"atlas":"00","highest":0,"node":0}',
        json.dumps({"atlas": "a" * 64, "highest": 2, "node": 1}),
        json.dumps({"atlas": "a" * 64, "highest": 0, "node": -1}),
        json.dumps({"atlas": "a" * 64, "highest": 0, "node": 1.0}),
        json.dumps({"atlas": "a" * 64, "highest": 0, "node": True}),
        json.dumps({"atlas": "a" * 64, "highest": 0, "node": 1 << 30}),
        json.dumps({"atlas": "a" * 64, "highest": 0, "node": 1, "prompt": "a dog"}),
        json.dumps({"atlas": "a" * 64, "node": 1}),
        json.dumps({"atlas": "a" * 64, "highest": 0, "node": 1}) + " " * 300,
        '{"atlas"',
    ],
)
def test_only_an_atlas_and_two_nodes_can_be_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"signature|JSON|characters|atlas|node"):
        read_signature(text)


def test_both_kinds_of_signatures_are_read_back(taxonomy: Taxonomy) -> None:
    node = signed(ATLAS, 3, 2)
    assert read_signature(node.to_json()) == node
    assert str(node.node) in node.words
    assert str(node.highest) in node.words
    concepts = disclose(parse("an apple on a table", taxonomy), Policy.KIND, taxonomy)
    assert concepts is not None
    assert read_signature(concepts.to_json()) == concepts


@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.1, 5.0])
def test_a_device_allows_only_nodes_that_are_near_enough(
    tolerance: float, monkeypatch: pytest.MonkeyPatch, pipe: Any
) -> None:
    space = DenoiserSpace.of(plan_of(pipe))
    atlas, curve = replace(ATLAS, space=space.hash), calibration()
    disclosure = NodeDisclosure(space, atlas, 4, 4, curve, tolerance)
    for row in range(0, 60, 7):
        vector = atlas.vectors[row] + 0.1
        monkeypatch.setattr(node_disclosure, "phi", lambda *_, v=vector: [v])
        found = disclosure.disclose(pipe, str(row))
        way = atlas.way(vector)
        # hand-off 5 is the next one that was measured after the 4 that are planned
        near = {
            n: curve.last_handoff(distance(vector, atlas.vectors[atlas.medoid(n)]), tolerance, (5,))
            for n in way
        }
        if found is None:
            assert not any(near.values())
            continue
        allowed = way[way.index(found.highest) : way.index(found.node) + 1]
        assert all(near[node] for node in allowed)
        if found.highest != way[0]:
            assert not near[way[way.index(found.highest) - 1]]
        monkeypatch.setattr(node_disclosure, "phi", lambda *_: pytest.fail("computed twice"))
        assert disclosure.disclose(pipe, str(row)) == found


def test_without_a_calibration_a_node_is_never_lifted(monkeypatch: pytest.MonkeyPatch, pipe: Any) -> None:
    space = DenoiserSpace.of(plan_of(pipe))
    atlas = replace(ATLAS, space=space.hash)
    monkeypatch.setattr(node_disclosure, "phi", lambda *_: [atlas.vectors[5]])
    found = NodeDisclosure(space, atlas, 4, 3).disclose(pipe, "any")
    assert found is not None
    assert found.node == found.highest == atlas.disclosed(atlas.vectors[5], 4)
    assert NodeDisclosure(space, atlas, 61, 3).disclose(pipe, "any") is None


def test_files_for_another_setting_are_refused(pipe: Any) -> None:
    space = DenoiserSpace.of(plan_of(pipe))
    with pytest.raises(UserError, match="another space"):
        NodeDisclosure(space, ATLAS, 4, 3)
    with pytest.raises(UserError, match="9 shared steps"):
        NodeDisclosure(space, replace(ATLAS, space=space.hash), 4, 9, calibration(), 0.3)
