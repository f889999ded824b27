"""Every LoRA-aware rule compared with a second implementation, on random ranks, shapes, scales and weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.rng import rng
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Rule, Update
from tests.strategies import reference
from tests.strategies.quadratic import Shapes, effective, random_state

sides = st.integers(1, 6)
linear = st.tuples(sides, sides)
convolution = st.tuples(sides, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


@dataclass
class Case:
    """A state, and the factors that clients of these ranks send."""

    state: SharedState
    ranks: list[int]
    sizes: list[int]
    seed: int

    def updates(self, round: int, kinds: tuple[str, ...] = ("lora_A", "lora_B")) -> list[Update]:
        """Return random factors of each client's rank, without those that are not sent."""
        found = []
        for k, (rank, size) in enumerate(zip(self.ranks, self.sizes, strict=True)):
            noise = rng(self.seed, "update", round, k)
            tensors = {}
            for layer, (down, up) in sorted(self.state.lora.items()):
                tensors[f"{layer}.lora_A"] = torch.randn((rank, *down.shape[1:]), generator=noise)
                tensors[f"{layer}.lora_B"] = torch.randn((len(up), rank, *up.shape[2:]), generator=noise)
            kept = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] in kinds}
            found.append(Update(k, size, 1 + k, kept, rank))
        return found

    def equal_ranks(self) -> "Case":
        return replace(self, ranks=[self.state.rank] * len(self.ranks))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shapes: Shapes = {
        f"layer{at}": s for at, s in enumerate(draw(st.lists(linear | convolution, min_size=1, max_size=2)))
    }
    rank, seed = draw(st.integers(1, 6)), draw(st.integers(0, 2**20))
    clients = draw(st.integers(1, 5))
    ranks = [draw(st.integers(1, rank)) for _ in range(clients)]
    sizes = [draw(st.integers(1, 60)) for _ in range(clients)]
    alpha = draw(st.floats(0.25, 16))
    return Case(random_state(seed, rank, alpha, shapes), ranks, sizes, seed)


several = settings(deadline=None, max_examples=40)


def numbers(lora: Mapping[str, tuple[Tensor, Tensor]]) -> reference.Lora:
    return {layer: (A.double().numpy(), B.double().numpy()) for layer, (A, B) in lora.items()}


def clients_of(updates: list[Update]) -> reference.Clients:
    return [(update.num_examples, numbers(update.lora())) for update in updates]


def fold(rule: Rule, state: SharedState, updates: list[Update], round: int) -> SharedState:
    rule.start(state, round)
    for update in updates:
        rule.add(update)
    return rule.finish()


def close(found: Any, expected: Any) -> None:
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        np.asarray(found), expected, rtol=1e-4, atol=1e-4 * (1 + np.abs(expected).max())
    )


def same_factors(found: SharedState, layer: str, expected: Any) -> None:
    for tensor, numbers_ in zip(found.lora[layer], expected, strict=True):
        close(tensor, numbers_)


@several
@given(case=cases())
def test_fedit(case: Case) -> None:
    case = case.equal_ranks()
    updates = case.updates(1)
    found = fold(load_strategy("fedit"), case.state, updates, 1)
    for layer in case.state.lora:
        same_factors(found, layer, reference.fedit(clients_of(updates), layer))


@several
@given(case=cases(), round=st.integers(1, 4))
def test_ffa_lora_and_rolora(case: Case, round: int) -> None:
    case = case.equal_ranks()
    before, both = numbers(case.state.lora), clients_of(case.updates(round))
    for name, kind, expected in (
        ("ffa_lora", "lora_B", reference.only_b),
        ("rolora", *(("lora_B", reference.only_b) if round in (1, 3) else ("lora_A", reference.only_a))),
    ):
        found = fold(load_strategy(name), case.state, case.updates(round, (kind,)), round)
        for layer in case.state.lora:
            same_factors(found, layer, expected(before[layer], both, layer))


@several
@given(case=cases())
def test_flora_over_rounds(case: Case) -> None:
    """R grows from round to round, stacked or dense; the clients' ranks are what they like."""
    rule = load_strategy("flora")
    state = rule.initial(case.state)
    expected = {layer: np.zeros_like(weight) for layer, weight in effective(state).items()}
    for round in (1, 2, 3):
        updates = case.updates(round)
        state = fold(rule, state, updates, round)
        for layer in expected:
            expected[layer] = reference.flora(
                expected[layer], state.adapter.scale, clients_of(updates), layer
            )
            close(effective(state)[layer], expected[layer])
            residual = state.residual[layer]
            weight = expected[layer].size
            stacked = sum(case.ranks) * round * (len(expected[layer]) + weight // len(expected[layer]))
            if isinstance(residual, torch.Tensor):
                assert stacked >= weight
                assert residual.shape == expected[layer].shape
            else:
                assert stacked < weight
                assert len(residual[0]) == residual[1].shape[1] == sum(case.ranks) * round


@several
@given(case=cases())
def test_fedex_lora_over_rounds(case: Case) -> None:
    case = case.equal_ranks()
    rule, state = load_strategy("fedex_lora"), case.state
    expected = {layer: np.zeros(weight.shape) for layer, weight in effective(state).items()}
    for round in (1, 2, 3):
        updates = case.updates(round)
        state = fold(rule, state, updates, round)
        for layer in expected:
            expected[layer] = reference.fedex_lora(
                expected[layer], state.adapter.scale, clients_of(updates), layer
            )
            same_factors(state, layer, reference.fedit(clients_of(updates), layer))
            close(effective(replace(state, lora={}))[layer], expected[layer])


@several
@given(case=cases())
def test_flexlora_at_every_rank(case: Case) -> None:
    rule = load_strategy("flexlora")
    updates = case.updates(1)
    state = fold(rule, case.state, updates, 1)
    for rank in range(1, case.state.rank + 1):
        at_rank = rule.download(state, 0, rank, 2).shared
        assert at_rank.rank == rank
        for layer in state.lora:
            W = reference.flexlora(clients_of(updates), layer, rank)
            close(effective(at_rank)[layer], case.state.adapter.scale * W)


@several
@given(case=cases())
def test_hetlora(case: Case) -> None:
    updates = case.updates(1)
    found = fold(load_strategy("hetlora"), case.state, updates, 1)
    for layer in case.state.lora:
        same_factors(found, layer, reference.hetlora(clients_of(updates), layer, case.state.rank))


@several
@given(case=cases(), regularisation=st.floats(1e-3, 10))
def test_lora_fair(case: Case, regularisation: float) -> None:
    case = case.equal_ranks()
    updates = case.updates(1)
    rule = load_strategy("lora_fair", {"regularisation": regularisation})
    found = fold(rule, case.state, updates, 1)
    for layer in case.state.lora:
        same_factors(found, layer, reference.lora_fair(clients_of(updates), layer, regularisation))


@several
@given(case=cases(), period=st.integers(1, 3), round=st.integers(1, 6))
def test_fedsvd(case: Case, period: int, round: int) -> None:
    """The weight is that of the mean of B; after a factoring A's rows are orthonormal, and B A sorted."""
    case = case.equal_ranks()
    both = clients_of(case.updates(round))
    found = fold(
        load_strategy("fedsvd", {"period": period}), case.state, case.updates(round, ("lora_B",)), round
    )
    for layer, (down, up) in numbers(case.state.lora).items():
        A, B = reference.only_b((down, up), both, layer)
        close(effective(found)[layer], case.state.adapter.scale * reference.product(A, B))
        if round % period:
            same_factors(found, layer, (A, B))
            continue
        rows = found.lora[layer][0].flatten(1).double().numpy()
        directions = np.linalg.matrix_rank(down.reshape(len(down), -1))
        close((rows @ rows.T)[:directions, :directions], np.eye(directions))
        for rank in range(1, case.state.rank + 1):
            A_r, B_r = (x.double().numpy() for x in found.lora[layer])
            best = reference.best_of_rank(reference.product(A, B), rank)
            close(reference.product(A_r[:rank], B_r[:, :rank]), best)


@several
@given(case=cases())
def test_fedsa_lora(case: Case) -> None:
    case = case.equal_ranks()
    rule = load_strategy("fedsa_lora")
    state = rule.initial(case.state)
    both = clients_of(case.updates(1))
    found = fold(rule, state, case.updates(1, ("lora_A",)), 1)
    for layer, before in numbers(state.lora).items():
        assert not before[1].any()
        same_factors(found, layer, reference.only_a(before, both, layer))
