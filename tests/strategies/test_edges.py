"""Every strategy aggregates over edges what it aggregates without them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.server.edges.aggregation import EdgeRound
from fedaigc.federation.wire.ledger import Ledger
from fedaigc.federation.wire.messages import ClientOrder, update_record
from fedaigc.strategy.edge_sums import edge_half, edge_halves, edge_weight
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import AveragingRule, SharedState, Traits, Update
from fedaigc.strategy.sources import strategy_names
from tests.strategies.quadratic import CLIENTS, Client, Federation, copy_of, effective, largest_difference

NAMES = strategy_names()
FORWARDED = [half.strategy for half in edge_halves() if not half.weight]
# float32 sums in another order
SAME = 2e-5
# of clients 0, 1, 4, 7 and 9: edges of two, one and two; none of edge 3 takes part
EDGES = (0, 0, 3, 3, 1, 3, 3, 2, 3, 2)


def federation_of(name: str, clients: tuple[Client, ...] = CLIENTS, **options: Any) -> Federation:
    """A federation whose state can cross the wire."""
    federation = Federation(name, clients, options=options)
    federation.shared = replace(federation.shared, base_hash=64 * "0")
    return federation


def config_of(name: str, options: Mapping[str, Any]) -> FederationConfig:
    return parse_config(
        {
            "homes": "homes",
            "output": "out",
            "num_clients": 10,
            "rounds": {"strategy": name, "options": dict(options)},
            "edges": {"count": 4, "clients": EDGES},
        }
    )


def over_edges(
    federation: Federation, updates: list[Update], backhaul: Ledger | None = None
) -> tuple[SharedState, dict[str, Tensor]]:
    """Fold updates over the edges of `EDGES`; return the state, and what the rule remembers."""
    rule = federation.server()
    rule.load(federation.rule.state())
    rule.start(federation.shared, federation.round)
    edges = EdgeRound(
        config_of(federation.name, federation.options),
        rule,
        backhaul or Ledger(),
        federation.round,
        {},
        {},
    )
    received = {client.client: federation.received(client) for client in federation.clients}
    read, _ = edges.send(received, {client: ClientOrder() for client in received})
    for client, each in read.items():
        assert each.shared.hash() == received[client].shared.hash()
        assert all(torch.equal(each.extra[name], value) for name, value in received[client].extra.items())
    for update in updates:
        reply = update_record(update, received[update.client], "float32", np.random.default_rng(0))
        edges.add(copy_of(update), {}, reply)
    edges.finish({})
    return rule.finish(), rule.state()


def one_level(federation: Federation, updates: list[Update]) -> tuple[SharedState, dict[str, Tensor]]:
    rule = federation.server()
    rule.load(federation.rule.state())
    return federation.fold(updates, rule), rule.state()


def updates_of(federation: Federation) -> list[Update]:
    """The updates of a round, as a run passes them to the rule."""
    uniform = federation.rule.weighting == "uniform"
    return [replace(each, num_examples=1) if uniform else each for each in federation.updates()]


def clients_of(name: str) -> tuple[Client, ...]:
    if not load_strategy(name).traits.any_rank:
        return CLIENTS
    return tuple(replace(client, rank=1 + at % 4) for at, client in enumerate(CLIENTS))


def check_same(name: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    if name in FORWARDED:
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert largest_difference(found, expected) < SAME


@pytest.mark.parametrize("name", NAMES)
def test_two_levels_equal_one_level(name: str) -> None:
    """State and memory of the rule, within rounding of float32, or bit for bit where edges forward the updates.

    With all clients, and without one client of an edge, a whole edge, all edges but one, and everyone.
    """
    federation = federation_of(name, clients_of(name))
    federation.play()
    updates = updates_of(federation)
    for answered in ((0, 1, 4, 7, 9), (0, 4, 7, 9), (0, 1, 7), (9,), ()):
        there = [update for update in updates if update.client in answered]
        expected, remembered = one_level(federation, there)
        found, memory = over_edges(federation, there)
        if len(answered) == 5 and name not in ("local_only", "qfedavg", "bulyan"):
            assert largest_difference(expected.tensors(), federation.shared.tensors()) > 100 * SAME
        check_same(name, found.tensors(), expected.tensors())
        check_same(name, effective(found), effective(expected))
        check_same(name, memory, remembered)


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("name", ["fedit", "fednova", "scaffold", "fedavg", "fedrep", "flora"])
def test_every_weighting(name: str, weighting: str) -> None:
    federation = federation_of(name, weighting=weighting)
    federation.play()
    updates = updates_of(federation)
    expected, _ = one_level(federation, updates)
    check_same(name, over_edges(federation, updates)[0].tensors(), expected.tensors())


@pytest.mark.parametrize("dp", ["server-fixed", "client-adaptive"])
def test_with_differential_privacy_edges_forward(dp: str) -> None:
    options: dict[str, Any] = {"dp": dp, "noise_multiplier": 0.01, "clipping_norm": 1.0, "insecure_seed": 3}
    federation = federation_of("fedavg", **options)
    updates = updates_of(federation)
    assert edge_weight(federation.rule, updates[0]) is None
    expected, _ = one_level(federation, updates)
    assert over_edges(federation, updates)[0].hash() == expected.hash()


def test_a_mean_crosses_the_backhaul_once_and_forwarded_updates_all() -> None:
    """The weights of 5 clients on 3 edges, in bytes relative to those of one client."""
    counted = {}
    for name in ("fedit", "flora"):
        federation = federation_of(name)
        updates = updates_of(federation)
        ledger = Ledger()
        over_edges(federation, updates, ledger)
        own = Ledger()
        own.add(
            "up",
            update_record(updates[0], federation.received(CLIENTS[0]), "float32", np.random.default_rng(0)),
        )
        one = own.totals()["up"]["weights"]
        counted[name] = (ledger.totals()["up"]["weights"], ledger.totals()["down"]["weights"], one)
    up, down, one = counted["fedit"]
    assert abs(up - 3 * one) < 0.05 * one
    assert abs(down - 3 * one) < 0.05 * one  # the state, once for each edge
    up, down, one = counted["flora"]
    assert up == 5 * one
    assert down > 4.9 * one  # each client receives fresh factors of its own


class OwnAdd(AveragingRule):
    traits = Traits()

    def add(self, update: Update) -> None:
        super().add(replace(update, num_examples=1))


class Declared(OwnAdd):
    def edge_weight(self, update: Update) -> float | None:
        return 1.0


def test_a_strategy_with_an_add_of_its_own_is_forwarded_unless_it_declares_a_weight() -> None:
    update = Update(0, 3, 2, {})
    assert edge_weight(type("Plain", (AveragingRule,), {})(), update) == 3
    assert edge_weight(OwnAdd(), update) is None
    assert edge_weight(Declared(), update) == 1.0
    subclass = type("Mine", (type(load_strategy("scaffold")),), {"__module__": "mine"})
    assert edge_weight(subclass(), update) is None


def test_the_table_says_what_is_done() -> None:
    assert edge_half("fednova").sends == "a mean by n_k / tau_k"
    assert edge_half("krum").sends == "each update"
    assert [half.strategy for half in edge_halves()] == NAMES
    assert all(bool(half.weight) != bool(half.why) for half in edge_halves())
