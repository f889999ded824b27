"""Nodes under local differential privacy: the bound on the ratios of probabilities, computed and not sampled."""

from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.local_privacy import RandomizedNode
from tests.semantics.denoiser.test_atlas import atlas_of

ATLASES = [atlas_of(seed) for seed in range(3)]
EPSILONS = st.one_of(st.sampled_from([0.1, 1.0, 2.0, 4.0, 8.0, 20.0]), st.floats(1e-3, 20.0))


def mechanism(number: int, minimum: int, epsilon: float) -> RandomizedNode:
    found = RandomizedNode.of(ATLASES[number], minimum, epsilon)
    assert found is not None
    return found


@settings(max_examples=60)
@given(st.integers(0, 2), st.integers(1, 40), EPSILONS)
def test_no_answer_is_more_than_e_to_epsilon_times_as_likely_for_one_prompt_as_for_another(
    number: int, minimum: int, epsilon: float
) -> None:
    drawing = mechanism(number, minimum, epsilon)
    bound = Fraction(Decimal(epsilon).exp(Context(prec=100)))
    chances = [[drawing.probability(own, said) for said in drawing.nodes] for own in drawing.nodes]
    assert all(sum(row) == 1 for row in chances)
    largest = max(max(column) / min(column) for column in zip(*chances, strict=True))
    assert largest <= bound
    # and the noise is no larger than it has to be
    if len(drawing.nodes) > 1:
        assert largest > bound * Fraction((1 << 31) - 1, 1 << 31)


@settings(max_examples=40)
@given(st.integers(0, 2), st.integers(1, 30), EPSILONS, st.integers(0, 59))
def test_each_number_below_the_sum_of_weights_gives_a_node_of_its_weight(
    number: int, minimum: int, epsilon: float, row: int
) -> None:
    """The node follows from a whole number; here its value at both ends of each node's share."""
    drawing = mechanism(number, minimum, epsilon)
    vector = drawing.atlas.vectors[row]
    own = drawing.own(vector)
    others = [node for node in drawing.nodes if node != own]
    asked: list[int] = []

    def said(value: int) -> int:
        def below(bound: int) -> int:
            asked.append(bound)
            return value

        return drawing.drawn(vector, below)

    start = drawing.own_weight
    assert said(0) == said(start - 1) == own
    for place, node in enumerate(others):
        assert said(start + (place << 32)) == said(start + ((place + 1) << 32) - 1) == node
    assert set(asked) == {start + (len(others) << 32)}
    assert drawing.probability(own, own) == Fraction(start, asked[0])


@given(st.integers(0, 2), st.integers(1, 70), EPSILONS)
def test_the_nodes_follow_from_atlas_minimum_and_epsilon(number: int, minimum: int, epsilon: float) -> None:
    atlas = ATLASES[number]
    drawing = RandomizedNode.of(atlas, minimum, epsilon)
    if minimum > len(atlas.captions):
        assert drawing is None
        return
    assert drawing is not None
    # every prompt belongs to exactly one of them, which at least m public captions belong to as well
    belongs = [drawing.own(vector) for vector in atlas.vectors]
    assert set(belongs) == set(drawing.nodes)
    assert all(belongs.count(node) >= minimum for node in drawing.nodes)
    for vector in np.random.default_rng(0).normal(size=(5, atlas.vectors.shape[1])):
        assert len(set(atlas.way(vector)) & set(drawing.nodes)) == 1
    assert len(drawing.nodes) - 1 <= np.exp(epsilon)
    assert drawing.bits <= min(np.log2(len(drawing.nodes)), epsilon * np.log2(np.e)) + 1e-12


@given(st.integers(0, 2), st.integers(1, 70), st.integers(0, 10))
def test_the_ends_of_ways_are_what_the_captions_disclose(number: int, minimum: int, depth: int) -> None:
    atlas = ATLASES[number]
    said = {atlas.disclosed(vector, minimum) for vector in atlas.vectors}
    ends = atlas.ends(minimum)
    assert set(ends) == said - {None}
    assert atlas.answers(minimum, lifted=False) == len(ends)
    # a lifted signature names a node on a way to an end, and one at or above it
    nodes = {node for vector in atlas.vectors for node in _way_to(atlas.way(vector), ends)}
    lifted = sum(len(_to_root(atlas.parents, node)) for node in nodes)
    assert atlas.answers(minimum, lifted=True) == lifted
    shallow = atlas.ends(minimum, depth)
    assert all(len(_to_root(atlas.parents, node)) - 1 <= depth for node in shallow)
    assert bool(shallow) == (minimum <= len(atlas.captions))


def _way_to(way: list[int], ends: tuple[int, ...]) -> list[int]:
    return [node for place, node in enumerate(way) if not set(way[:place]) & set(ends)] if ends else []


def _to_root(parents: list[int], node: int) -> list[int]:
    found = [node]
    while found[-1]:
        found.append(parents[found[-1]])
    return found


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 20.5, float("nan"), float("inf")])
def test_an_epsilon_out_of_range_is_refused(epsilon: float) -> None:
    with pytest.raises(UserError, match="epsilon is"):
        RandomizedNode.of(ATLASES[0], 4, epsilon)
    with pytest.raises(UserError, match="at least 1"):
        RandomizedNode.of(ATLASES[0], 0, 1.0)
    with pytest.raises(ValueError, match="none of the nodes"):
        mechanism(0, 4, 1.0).probability(0, 10**6)
