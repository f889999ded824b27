"""What two devices agree on: the same on either, by a rule that both can check."""

from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.deployment.peer.agreement import Side, agreement, best, common, own_cost
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.grouping import Group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from tests.small_atlas import small_atlas

GROUP = Group(("one", "other"), "a dog on a bed", None, 0)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SIDES = st.builds(Side, DIGESTS, DIGESTS, st.integers(0, 2), st.just(NodeSignature("0" * 64, 1, 0)))


@given(SIDES, SIDES)
def test_the_cheaper_device_computes_and_ties_go_by_key(calls: Side, answers: Side) -> None:
    found = agreement(calls, answers, GROUP, "plan", 3)
    ranks = {side.certificate: (side.cost, side.certificate) for side in (calls, answers)}
    assert ranks[found.executor] == min(ranks.values())
    # who called does not decide
    assert agreement(answers, calls, GROUP, "plan", 3).executor == found.executor
    assert 0 <= found.noise_seed < 2**63
    assert found.binding.step == 3


@given(SIDES, SIDES, DIGESTS)
def test_whatever_differs_makes_another_agreement(calls: Side, answers: Side, nonce: str) -> None:
    found = agreement(calls, answers, GROUP, "plan", 3)
    others = [
        agreement(calls, replace(answers, cost=3), GROUP, "plan", 3),
        agreement(calls, answers, replace(GROUP, prompt="a cat"), "plan", 3),
        agreement(calls, answers, GROUP, "another", 3),
        agreement(calls, answers, GROUP, "plan", 4),
    ]
    if nonce != calls.nonce:
        others.append(agreement(replace(calls, nonce=nonce), answers, GROUP, "plan", 3))
    for other in others:
        assert other.digest != found.digest
        assert other.noise_seed != found.noise_seed
        assert other.binding.group != found.binding.group


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


@pytest.mark.parametrize(
    ("battery", "cost"), [(None, 0), ((20.0, True), 0), ((20.0, False), 80), ((100.0, False), 0)]
)
def test_the_cost_of_a_battery(
    monkeypatch: pytest.MonkeyPatch, battery: tuple[float, bool] | None, cost: int
) -> None:
    from collections import namedtuple

    kind = namedtuple("kind", "percent power_plugged")
    monkeypatch.setattr(
        psutil, "sensors_battery", lambda: None if battery is None else kind(*battery), raising=False
    )
    assert own_cost() == cost
