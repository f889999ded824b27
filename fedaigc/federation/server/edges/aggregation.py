"""The edges in a round of training: two-level aggregation.

The server sends each edge the state once, and the edge sends it on to its clients. Every message between an edge and a
device is the one that a server without edges would exchange with the device, bit for bit. The edge checks the updates
of its clients by the bounds that the server sent it. Then it sends one mean, or each update unchanged: see
`strategy.edge_sums`.

In a simulation the edges are this stage of the server's loop. What crosses the backhaul is encoded, counted and
decoded, so nothing reaches the server that is not in the count. The sizes of updates, which the server needs for its
bounds, are counted once, although in the first round the edges wait for the server's bounds before they answer.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from flwr.app import RecordDict
from torch import Tensor

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.wire.edge_messages import (
    edge_order_records,
    edge_update_record,
    read_edge_order,
    read_edge_update,
)
from fedaigc.federation.wire.ledger import Ledger
from fedaigc.federation.wire.messages import ClientOrder
from fedaigc.rng import numpy_rng
from fedaigc.strategy.edge_sums import edge_weight, stand_in
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.rule import Received, Rule, Update, WeightedMean


class EdgeRound:
    """The edges of a run in one round.

    Args:
        config: Of the run, with the section `edges`.
        rule: The server half of the strategy.
        backhaul: Counts what crosses between the edges and the server.
        number: Number of the round.
        weights: The largest weight of each client.
        bounds: The largest accepted size of an update, by group of its tensors.
    """

    def __init__(
        self,
        config: FederationConfig,
        rule: Rule,
        backhaul: Ledger,
        number: int,
        weights: Mapping[int, int],
        bounds: Mapping[str, float],
    ) -> None:
        self._config, self._rule, self._backhaul, self._number = config, rule, backhaul, number
        self._weights, self._bounds = weights, bounds
        self._clients: dict[int, list[int]] = {}
        self._means: dict[int, WeightedMean] = {}
        # the accepted updates without tensors, and their sizes
        self._counts: dict[int, Update] = {}
        self._sizes: dict[int, Mapping[str, float]] = {}

    def lost(self, sampled: Collection[int]) -> dict[int, str]:
        """Return the clients whose edge fails in this round, each with the reason."""
        rate = self._config.edges.dropout_rate if self._config.edges is not None else 0.0
        edges = {self._config.edge(client) for client in sampled}
        lost = {
            edge
            for edge in edges
            if numpy_rng(self._config.seed, "edge dropout", self._number, edge).random() < rate
        }
        owned = {client: self._config.edge(client) for client in sampled}
        return {
            client: f"client {client}: edge {edge} failed" for client, edge in owned.items() if edge in lost
        }

    def send(
        self, received: Mapping[int, Received], orders: Mapping[int, ClientOrder]
    ) -> tuple[dict[int, Received], dict[int, ClientOrder]]:
        """Send the edges their orders, and return what these say for each client.

        Args:
            received: What each client receives, before it is rounded.
            orders: The part of each client's order that is for it alone.
        """
        for client in received:
            self._clients.setdefault(self._config.edge(client), []).append(client)
        states: dict[int, Received] = {}
        own: dict[int, ClientOrder] = {}
        for _, clients in sorted(self._clients.items()):
            records = edge_order_records(
                {client: received[client] for client in clients},
                orders,
                self._weights,
                self._bounds,
                strategy_code(self._config.rounds.strategy),
            )
            for record in records:
                self._backhaul.add("down", record)
            found = read_edge_order(records)
            states |= found[0]
            own |= found[1]
        return dict(sorted(states.items())), dict(sorted(own.items()))

    def add(self, update: Update, sizes: Mapping[str, float], reply: RecordDict) -> None:
        """Have the edge of a client take its accepted update; called in client order.

        Args:
            update: The update with the number of examples that it counts for.
            sizes: Its sizes.
            reply: The message that it came in.
        """
        self._counts[update.client] = replace(update, tensors={})
        self._sizes[update.client] = sizes
        weight = edge_weight(self._rule, update)
        if weight is None:
            self._backhaul.add("up", reply)
            self._rule.add(update)
        else:
            self._means.setdefault(self._config.edge(update.client), WeightedMean()).add(
                weight, update.tensors
            )

    def finish(self, refused: Mapping[int, str]) -> None:
        """Have the edges send what they have to the server, which adds their means to the rule, in client order.

        Args:
            refused: Why an update was left out, by client.
        """
        counts: dict[int, Update] = {}
        means: dict[int, dict[str, Tensor]] = {}
        for edge, clients in sorted(self._clients.items()):
            record = edge_update_record(
                self._means[edge].finish() if edge in self._means else {},
                [self._counts[client] for client in clients if client in self._counts],
                {client: self._sizes[client] for client in clients if client in self._sizes},
                {client: refused[client] for client in clients if client in refused},
            )
            self._backhaul.add("up", record)
            if edge in self._means:
                accepted, means[edge] = read_edge_update(record)
                counts |= {update.client: update for update in accepted}
        for client, update in sorted(counts.items()):
            self._rule.add(stand_in(update, means[self._config.edge(client)]))
