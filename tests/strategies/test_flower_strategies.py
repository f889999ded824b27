"""Flower's strategies as rules: called as by Flower's loop, compared with small formulas, and resumed."""

import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy.multikrum import compute_distances
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.strategy.flower.rule import FLOWER_STRATEGIES
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Rule, Update
from tests.global_random import global_numbers
from tests.strategies.test_general_servers import SIZES, close, fold, random_state, slow_mean, updates_for

Arrays = Mapping[str, np.ndarray]


def arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def stacked(updates: list[Update], name: str) -> np.ndarray:
    return np.stack([update.tensors[name].double().numpy() for update in updates])


def mean(updates: list[Update]) -> dict[str, np.ndarray]:
    return {
        name: slow_mean(updates, lambda update, n: update.tensors[n], name).numpy()
        for name in updates[0].tensors
    }


def compare(found: SharedState, expected: Arrays) -> None:
    close(found.tensors(), {name: torch.from_numpy(np.asarray(value)) for name, value in expected.items()})


class Reference:
    """The formulas of the papers, as Flower writes them, in double precision."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.m: dict[str, np.ndarray] = {}
        self.v: dict[str, np.ndarray] = {}

    def step(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        return getattr(self, self.name)(x, updates, round)

    def fedavg(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        return mean(updates)

    fedprox = fedavg

    def fedavgm(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        change = {n: x[n] - y for n, y in mean(updates).items()}
        self.m = {n: 0.9 * self.m.get(n, 0) + d for n, d in change.items()}
        return {n: x[n] - self.m[n] for n in x}

    def _moments(self, x: Arrays, updates: list[Update], beta_1: float) -> dict[str, np.ndarray]:
        change = {n: y - x[n] for n, y in mean(updates).items()}
        self.m = {n: beta_1 * self.m.get(n, 0) + (1 - beta_1) * d for n, d in change.items()}
        return change

    def fedadam(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        change = self._moments(x, updates, 0.9)
        self.v = {n: 0.99 * self.v.get(n, 0) + 0.01 * d**2 for n, d in change.items()}
        eta = 0.1 * np.sqrt(1 - 0.99 ** (round + 1)) / (1 - 0.9 ** (round + 1))
        return {n: x[n] + eta * self.m[n] / (np.sqrt(self.v[n]) + 1e-3) for n in x}

    def fedyogi(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        change = self._moments(x, updates, 0.9)
        old = {n: self.v.get(n, np.zeros_like(d)) for n, d in change.items()}
        self.v = {n: old[n] - 0.01 * d**2 * np.sign(old[n] - d**2) for n, d in change.items()}
        return {n: x[n] + 0.01 * self.m[n] / (np.sqrt(self.v[n]) + 1e-3) for n in x}

    def fedadagrad(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        change = self._moments(x, updates, 0.0)
        self.v = {n: self.v.get(n, 0) + d**2 for n, d in change.items()}
        return {n: x[n] + 0.1 * self.m[n] / (np.sqrt(self.v[n]) + 1e-3) for n in x}

    def fedmedian(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        return {n: np.median(stacked(updates, n), 0) for n in x}

    def fedtrimmedavg(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        cut = int(0.2 * len(updates))
        return {n: np.sort(stacked(updates, n), 0)[cut : len(updates) - cut].mean(0) for n in x}

    def krum(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        return mean([self._by_score(updates)[0]])

    def multikrum(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        return mean(self._by_score(updates)[:2])

    def _by_score(self, updates: list[Update]) -> list[Update]:
        flat = [np.concatenate([t.double().numpy().ravel() for t in u.tensors.values()]) for u in updates]
        scores = []
        for own, x in enumerate(flat):
            others = sorted(float(((x - y) ** 2).sum()) for at, y in enumerate(flat) if at != own)
            scores.append(sum(others[: max(1, len(flat) - 2)]))
        return [updates[at] for at in np.argsort(scores, kind="stable")]

    def bulyan(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        if len(updates) < 3:
            return x
        return {n: stacked(updates, n).mean(0) for n in x}  # no malicious nodes: all are selected and close

    def qfedavg(self, x: Arrays, updates: list[Update], round: int) -> Arrays:
        lipschitz, q = 1000.0, 0.1
        above: dict[str, np.ndarray] = dict.fromkeys(x, np.zeros(()))
        below = 0.0
        for update in updates:
            loss = update.metrics["shared_loss"]
            gradient = {n: lipschitz * (x[n] - t.double().numpy()) for n, t in update.tensors.items()}
            above = {n: above[n] + loss**q * g for n, g in gradient.items()}
            norm = sum((g**2).sum() for g in gradient.values())
            below += q * loss ** (q - 1) * norm + lipschitz * loss**q
        return {n: x[n] - above[n] / below for n in x}


@pytest.mark.parametrize("name", FLOWER_STRATEGIES)
@pytest.mark.filterwarnings("ignore:round .* too few")
@settings(deadline=None, max_examples=8)
@given(sizes=SIZES, seed=st.integers(0, 10**6))
def test_three_rounds_are_the_formulas(name: str, sizes: list[tuple[int, int]], seed: int) -> None:
    rule, reference, x = load_strategy(name), Reference(name), random_state(seed)
    for round in (1, 2, 3):
        updates = updates_for(rule, x, sizes, seed + round)
        if name in ("krum", "multikrum") and len(sizes) == 2:
            continue  # both have the same score
        expected = reference.step(arrays(x.tensors()), updates, round)
        x = fold(rule, x, updates, round)
        compare(x, expected)
        assert all(tensor.dtype == torch.float32 for tensor in x.tensors().values())


def play(rule: Rule, x: SharedState, rounds: tuple[int, ...], seed: int = 0) -> SharedState:
    for round in rounds:
        x = fold(rule, x, updates_for(rule, x, [(3, 1), (5, 2), (1, 1), (8, 1)], seed + round), round)
    return x


@pytest.mark.parametrize("name", FLOWER_STRATEGIES)
def test_a_resumed_server_goes_on_bit_for_bit(name: str) -> None:
    straight = play(load_strategy(name), random_state(0), (1, 2, 3, 4))
    first = load_strategy(name)
    x = play(first, random_state(0), (1, 2))
    second = load_strategy(name)
    # in another order, as a file may give them
    second.load(dict(reversed({name: tensor.clone() for name, tensor in first.state().items()}.items())))
    assert play(second, x, (3, 4)).hash() == straight.hash()
    assert bool(first.state()) != first.traits.stateless


@pytest.mark.parametrize("name", FLOWER_STRATEGIES)
def test_nothing_of_ours_is_written_to_and_no_global_random_is_drawn(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []  # beartype draws from `random` itself, so that its state tells nothing

    def sample(population: object, k: int) -> list[object]:
        drawn.append(k)
        return []

    monkeypatch.setattr(random, "sample", sample)
    rule, x = load_strategy(name), random_state(0)
    updates = updates_for(rule, x, [(3, 1), (5, 2), (1, 1), (8, 1)], 0)
    before = [{n: t.clone() for n, t in update.tensors.items()} for update in updates]
    states = global_numbers(), torch.get_rng_state().tolist()
    digest = x.hash()
    rule.start(x, 1)
    for update in updates:
        rule.add(update)
    rule.finish()
    assert x.hash() == digest
    for update, copies in zip(updates, before, strict=True):
        assert all(torch.equal(update.tensors[n], copy) for n, copy in copies.items())
    assert states == (global_numbers(), torch.get_rng_state().tolist())
    assert drawn == [0]  # Flower draws its clients, none, from `random`


@pytest.mark.parametrize(("name", "malicious", "clients"), [("bulyan", 0, 2), ("bulyan", 1, 6)])
def test_bulyan_with_too_few_replies_changes_nothing_and_says_so(
    name: str, malicious: int, clients: int
) -> None:
    rule, x = load_strategy(name, {"num_malicious_nodes": malicious}), random_state(0)
    with pytest.warns(RuntimeWarning, match=f"Bulyan: {clients} updates are too few"):
        found = fold(rule, x, updates_for(rule, x, [(1, 1)] * clients, 0))
    assert found.hash() == x.hash()


def test_bulyan_leaves_out_two_attackers_of_each_side() -> None:
    rule, x = load_strategy("bulyan", {"num_malicious_nodes": 1}), random_state(0)
    updates = updates_for(rule, x, [(1, 1)] * 7, 0)
    for tensor in updates[3].tensors.values():
        tensor += 1000.0
    found = fold(rule, x, updates)
    assert max(float(tensor.abs().max()) for tensor in found.tensors().values()) < 10


def test_krum_tells_small_changes_of_large_weights_apart() -> None:
    """Distances in float32 lose changes of 0.01 on weights of 1000; Flower finds them from the changes."""
    x = random_state(0)
    x = x.with_tensors({name: tensor + 1000 for name, tensor in x.tensors().items()})
    rule = load_strategy("krum")
    updates = updates_for(rule, x, [(1, 1)] * 5, 0)
    size = [1.0, 0.5, 0.1, 0.6, 0.9]  # the third lies in the middle
    moved = [
        Update(u.client, 1, 1, {n: x.tensors()[n] + 0.01 * s * t for n, t in u.tensors.items()}, u.rank)
        for u, s in zip(updates, size, strict=True)
    ]
    assert fold(rule, x, moved).hash() == x.with_tensors(moved[2].tensors).hash()
    records = [
        ArrayRecord({name: Array(tensor.numpy()) for name, tensor in update.tensors.items()})
        for update in moved
    ]
    distances = compute_distances(records)
    exact = np.array(
        [
            [sum(((a.tensors[n] - b.tensors[n]).double() ** 2).sum() for n in a.tensors) for b in moved]
            for a in moved
        ]
    )
    assert np.abs(distances - exact).max() > exact.max()


def test_qfedavg_leaves_out_a_client_without_a_loss() -> None:
    rule, x = load_strategy("qfedavg"), random_state(0)
    updates = updates_for(rule, x, [(1, 1), (2, 1), (3, 1)], 0)
    expected = fold(load_strategy("qfedavg"), x, updates[:2])
    for metrics in ({}, {"shared_loss": -1.0}):
        odd = Update(2, 3, 1, updates[2].tensors, 2, metrics)
        with pytest.warns(RuntimeWarning, match=r"client 2 reports the loss .*: its update is left out"):
            found = fold(rule, x, [*updates[:2], odd])
        assert found.hash() == expected.hash()


def test_metrics_that_clients_make_up_do_not_stop_a_round() -> None:
    """Flower refuses a round whose replies have other keys."""
    rule, x = load_strategy("fedavg"), random_state(0)
    updates = updates_for(rule, x, [(1, 1), (2, 1)], 0)
    odd = Update(1, 2, 1, updates[1].tensors, 2, {"more": 1.0, "num-examples": 99.0})
    assert fold(rule, x, [updates[0], odd]).hash() == fold(rule, x, updates).hash()


def test_defaults_that_would_make_a_strategy_another_are_changed() -> None:
    x = random_state(0)
    updates = updates_for(load_strategy("fedavg"), x, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], 0)
    assert (
        fold(load_strategy("multikrum"), x, updates).hash() != fold(load_strategy("krum"), x, updates).hash()
    )
    assert flower.FedAvgM().server_momentum == 0
    rule = load_strategy("fedavgm")
    first, second = fold(rule, x, updates, 1), fold(rule, x, updates, 2)
    close(first.tensors(), fold(load_strategy("fedavg"), x, updates).tensors())
    assert second.hash() != first.hash()


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("fedavgm", {"server_momentun": 0.5}, "did you mean 'server_momentum'"),
        ("fedavg", {"tau": 0.5}, "fedavg has no option 'tau': it has clip_norm_lr"),
        ("fedmedian", {"eta": 0.5}, "fedmedian has no option 'eta': it has none"),
        ("fedmedian", {"dp": "server-fixed"}, "fedmedian has no option 'dp'"),
        ("fedavg", {"dp": "server-fixed", "delta": 1.0}, "delta is a number above 0 and below 1, got 1.0"),
        ("fedavg", {"dp": "server-fixed", "insecure_seed": 0.5}, "insecure_seed is a whole number, got 0.5"),
        ("fedavg", {"insecure_seed": 1}, "dp is one of .* it is missing"),
        ("fedadam", {"eta": "0.5"}, "eta is a number above 0, got '0.5'"),
        ("fedadam", {"eta": True}, "eta is a number above 0, got True"),
        ("fedadam", {"tau": 0}, "tau is a number above 0, got 0"),
        ("fedadam", {"beta_1": 1.0}, "beta_1 is a number from 0 to below 1, got 1.0"),
        ("fedadam", {"beta_1": float("nan")}, "beta_1 is a number from 0"),
        ("fedprox", {"proximal_mu": -0.1}, "proximal_mu is a number from 0, got -0.1"),
        ("krum", {"num_malicious_nodes": 1.5}, "num_malicious_nodes is a whole number from 0, got 1.5"),
        ("multikrum", {"num_nodes_to_select": 0}, "num_nodes_to_select is a whole number above 0, got 0"),
        ("fedtrimmedavg", {"beta": 0.5}, r"`beta` must be in the range \[0, 0.5\)"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        load_strategy(name, options)


def test_a_whole_number_may_stand_for_a_number() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert play(load_strategy("fedadam", {"eta": 1}), random_state(0), (1, 2))
