"""One contract for all strategies, based on their declared traits, without any strategy's name."""

import gc
import weakref
from dataclasses import replace
from itertools import accumulate, combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from fedaigc.errors import UserError
from fedaigc.federation.wire.flat_arrays import flatten
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.sources import strategy_names
from tests.strategies.quadratic import (
    CLIENTS,
    Client,
    Federation,
    client_state,
    effective,
    largest_difference,
)

NAMES = strategy_names()
TRAITS = {name: load_strategy(name).traits for name in NAMES}
SAME, OTHER = 2e-5, 1e-3

every = pytest.mark.parametrize("name", NAMES)
seeds = st.integers(0, 2**20)
few = settings(deadline=None, max_examples=3)


def declaring(**wanted: object) -> pytest.MarkDecorator:
    """Return the strategies whose traits have these values."""
    found = [n for n in NAMES if all(getattr(TRAITS[n], trait) == value for trait, value in wanted.items())]
    return pytest.mark.parametrize("name", found)


def mixed(clients: tuple[Client, ...] = CLIENTS) -> tuple[Client, ...]:
    """Return clients of ranks 1 to 4."""
    return tuple(replace(client, rank=1 + at % 4) for at, client in enumerate(clients))


def clients_of(name: str) -> tuple[Client, ...]:
    return mixed() if TRAITS[name].any_rank else CLIENTS


@every
@few
@given(seed=seeds, order=st.permutations(range(len(CLIENTS))))
def test_the_order_of_clients_changes_nothing(name: str, seed: int, order: list[int]) -> None:
    """The same updates under permuted client ids, which is another order at the server."""
    federation = Federation(name, clients_of(name), seed=seed)
    federation.play()
    updates = federation.updates()
    rule = federation.server()
    rule.load(federation.rule.state())
    expected = effective(federation.fold(updates))
    renamed = [replace(update, client=CLIENTS[at].client) for update, at in zip(updates, order, strict=True)]
    renamed.sort(key=lambda update: update.client)
    found = federation.fold(renamed, rule)
    assert largest_difference(effective(found), expected) < SAME


@declaring(averaging=True)
@few
@given(seed=seeds)
def test_equal_updates_are_a_fixed_point_and_one_client_is_the_identity(name: str, seed: int) -> None:
    federation = Federation(name, seed=seed)
    federation.play()
    received = federation.received(CLIENTS[1])
    _, update = federation.result(CLIENTS[1], received)
    expected = client_state(received, update)
    for clients in (CLIENTS, CLIENTS[:1]):
        rule = federation.server()
        rule.load(federation.rule.state())
        equal = [
            replace(update, client=client.client, num_examples=client.num_examples) for client in clients
        ]
        found = federation.fold(equal, rule)
        assert largest_difference(effective(found), effective(expected)) < SAME
        if TRAITS[name].keeps == "factor":  # its effective weight says nothing
            sent = {layer: found.tensors()[layer] for layer in update.tensors}
            assert largest_difference(sent, update.tensors) < SAME


def mean_of_products(federation: Federation) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The effective weights after a round, and sum_k p_k of the clients' own."""
    models, weights = [], []
    updates = []
    for client in federation.clients:
        received = federation.received(client)
        result, update = federation.result(client, received)
        updates.append(update)
        weights.append(client.num_examples)
        half = load_strategy(federation.name)
        ended = half.own(received, result.memory)
        personal = half.traits.personal
        models.append(effective(ended if personal else client_state(received, update)))
    layers = sorted({layer for model in models for layer in model})
    expected = {
        layer: sum(n * model[layer] for n, model in zip(weights, models, strict=True)) / sum(weights)
        for layer in layers
    }
    return effective(federation.fold(updates)), expected


@declaring(exact=True)
@few
@given(seed=seeds, rounds=st.integers(0, 3))
def test_the_effective_weight_of_exact_rules_moves_by_the_mean_product(
    name: str, seed: int, rounds: int
) -> None:
    federation = Federation(name, clients_of(name), seed=seed)
    federation.play(rounds)
    found, expected = mean_of_products(federation)
    assert largest_difference(found, expected) < SAME


@declaring(exact=False)
def test_rules_that_are_not_exact_show_a_counterexample(name: str) -> None:
    federation = Federation(name, clients_of(name))
    federation.play()
    found, expected = mean_of_products(federation)
    assert largest_difference(found, expected) > OTHER


@declaring(stateless=True)
def test_a_fresh_instance_of_a_stateless_rule_goes_on_the_same(name: str) -> None:
    federation = Federation(name, clients_of(name))
    federation.play(2)
    assert federation.rule.state() == {}
    assert all(memory == {} for memory in federation.memories.values())
    updates = federation.updates()
    assert federation.fold(updates, federation.server()).hash() == federation.fold(updates).hash()


@declaring(stateless=False)
def test_what_is_not_stateless_does_remember(name: str) -> None:
    federation = Federation(name, clients_of(name))
    federation.play()
    assert federation.rule.state() or any(federation.memories.values())


@every
def test_state_and_load_continue_bit_for_bit(name: str) -> None:
    """Through a file, at every round of four, as a killed run resumes; the clients' memories too."""
    straight = Federation(name, clients_of(name))
    resumed = Federation(name, clients_of(name))
    for _ in range(4):
        straight.play()
        resumed.play()
        kept = resumed.rule.state()
        held = load(save({key: tensor.clone().contiguous() for key, tensor in kept.items()})) if kept else {}
        resumed.rule = resumed.server()
        resumed.rule.load(held)
        for client, memory in resumed.memories.items():
            resumed.memories[client] = load(save(dict(memory))) if memory else {}
        assert resumed.shared.hash() == straight.shared.hash()
        for first, second in zip(resumed.own(), straight.own(), strict=True):
            assert first.hash() == second.hash()


@every
def test_no_update_changes_nothing(name: str) -> None:
    federation = Federation(name, clients_of(name))
    for _ in range(2):
        before = federation.rule.state()
        assert federation.fold([]).hash() == federation.shared.hash()
        after = federation.rule.state()
        assert before.keys() <= after.keys()
        assert all(torch.equal(after[key], value) for key, value in before.items())
        federation.play()


@every
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3])
def test_the_result_is_finite(name: str, size: float) -> None:
    """Also for updates of zeros, which have no norm and no direction."""
    federation = Federation(name, clients_of(name))
    for _ in range(2):
        updates = [
            replace(update, tensors={key: size * tensor for key, tensor in update.tensors.items()})
            for update in federation.updates()
        ]
        federation.shared = federation.fold(updates)
        federation.round += 1
        assert all(bool(tensor.isfinite().all()) for tensor in federation.shared.tensors().values())
        assert all(tensor.dtype == torch.float32 for tensor in federation.shared.tensors().values())
        assert all(bool(tensor.isfinite().all()) for tensor in federation.rule.state().values())


@declaring(any_rank=True)
def test_any_rank_takes_part_at_the_same_scale(name: str) -> None:
    ranks = (2, 4, 8, 16, 16)
    clients = tuple(replace(client, rank=rank) for client, rank in zip(CLIENTS, ranks, strict=True))
    federation = Federation(name, clients, rank=16)
    for client, rank in zip(clients, ranks, strict=True):
        shared = federation.received(client).shared
        assert shared.rank == rank
        assert shared.adapter.scale == federation.shared.adapter.scale
    federation.play(2)
    assert federation.shared.rank == 16
    for rank in (0, 17, 32):
        with pytest.raises(ValueError, match=f"{rank}"):
            federation.rule.download(federation.shared, 0, rank, 3)


@declaring(any_rank=False)
def test_other_rules_refuse_another_rank(name: str) -> None:
    federation = Federation(name, rank=4)
    for rank in (2, 8):
        with pytest.raises(ValueError, match=f"{rank}"):
            federation.rule.download(federation.shared, 0, rank, 1)


@every
def test_an_update_of_a_higher_rank_is_refused(name: str) -> None:
    federation = Federation(name, rank=4)
    with pytest.raises(ValueError, match="5"):
        federation.rule.expected(federation.received(CLIENTS[0]), 5)


@every
def test_what_is_given_is_not_written_to(name: str) -> None:
    federation = Federation(name, clients_of(name))
    for _ in range(3):
        given = dict(federation.shared.tensors())
        memory = {
            f"{client}/{key}": tensor
            for client, kept in federation.memories.items()
            for key, tensor in kept.items()
        }
        copies = {key: tensor.clone() for key, tensor in (given | memory).items()}
        federation.play()
        assert all(torch.equal(tensor, copies[key]) for key, tensor in (given | memory).items())


@declaring(averaging=True)
def test_averaging_keeps_no_update(name: str) -> None:
    """The tensors of an update may be views of one buffer: none may keep it alive."""
    federation = Federation(name, clients_of(name))
    updates = federation.updates()
    federation.rule.start(federation.shared, federation.round)
    for update in updates:
        tensors = update.tensors
        if not tensors:
            continue
        buffer = flatten(tensors)
        alive = weakref.ref(buffer)
        values, ends = torch.from_numpy(buffer), accumulate(tensor.numel() for tensor in tensors.values())
        views = {
            key: values[end - tensor.numel() : end].view(tensor.shape)
            for (key, tensor), end in zip(tensors.items(), ends, strict=True)
        }
        received = replace(update, tensors=views)
        federation.rule.add(received)
        del received, views, values, buffer
        gc.collect()
        assert alive() is None


def outcome(name: str) -> list[dict[str, Tensor]]:
    """The global model and those of the devices after two rounds of many steps."""
    federation = Federation(name, [replace(client, num_steps=8 * client.num_steps) for client in CLIENTS])
    federation.play(2)
    return [effective(federation.shared), *(effective(model) for model in federation.own())]


def test_two_strategies_differ_unless_they_declare_that_they_are_equal() -> None:
    """FedAvg among them. What is equal by construction appears once in a table."""
    results = {name: outcome(name) for name in NAMES}
    equal = {name: load_strategy(name).equals or name for name in NAMES}
    assert len(set(equal.values())) < len(NAMES)
    for first, second in combinations(NAMES, 2):
        away = max(largest_difference(*pair) for pair in zip(results[first], results[second], strict=True))
        if equal[first] == equal[second]:
            assert away < SAME, f"{first} and {second} should be equal"
        else:
            assert away > SAME, f"{first} and {second} do the same"


@every
def test_only_personal_rules_give_a_device_a_model_of_its_own(name: str) -> None:
    federation = Federation(name, clients_of(name))
    federation.play(2)
    differences = [
        largest_difference(effective(own), effective(federation.received(client).shared))
        for own, client in zip(federation.own(), federation.clients, strict=True)
    ]
    assert (max(differences) > OTHER) == TRAITS[name].personal


@declaring(edge=False)
def test_without_a_common_model_the_edge_would_run_the_base(name: str) -> None:
    federation = Federation(name)
    federation.play(2)
    assert largest_difference(effective(federation.shared), {}) == 0


FILES = [name for name in NAMES if type(load_strategy(name)).__module__ == f"fedaigc.strategy.builtin.{name}"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is(name: str) -> None:
    """Its paper or whose it is, its client, what the edge runs, its traits and its options."""
    strategy = type(load_strategy(name))
    text = " ".join((__import__(strategy.__module__, fromlist=["Strategy"]).__doc__ or "").split())
    assert "arXiv:" in text or "Ours" in text or "baseline" in text
    assert f"Keeps: {TRAITS[name].keeps}" in text
    assert "edge" in text
    assert "Traits:" in text
    assert (strategy.__doc__ or "").strip()
    with pytest.raises(UserError, match="has no option 'no_such_option'"):
        load_strategy(name, {"no_such_option": 1})
