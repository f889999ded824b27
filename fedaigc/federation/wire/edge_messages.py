"""Messages between a server and its edges in a round of training.

Down, an edge gets each state that its clients receive once, in float32, and a table that says which client receives
which, with the rest of their orders. Up, it sends the mean of its clients' tensors, where it makes one, and their
counts. These messages cross the backhaul of a simulation; devices of a deployment never see them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor

from fedaigc.federation.wire.messages import (
    BODY,
    ClientOrder,
    body,
    read_tensors,
    read_train,
    tensors_record,
    train_record,
    values_of,
)
from fedaigc.strategy.rule import Received, Update

_COUNTS = ("client", "num_examples", "num_steps", "rank", "metrics")


def edge_order_records(
    received: Mapping[int, Received],
    orders: Mapping[int, ClientOrder],
    weights: Mapping[int, int],
    bounds: Mapping[str, float],
    strategy_code: str,
) -> list[RecordDict]:
    """Return the order to an edge for a round: a table of its clients, and each state that they receive once.

    Args:
        received: What each client of the edge receives, before it is rounded.
        orders: The part of each client's order that is for it alone.
        weights: The largest weight of each client.
        bounds: The largest accepted size of an update, by group of its tensors.
        strategy_code: Fingerprint of the strategy's code.
    """
    states: list[Received] = []
    table = []
    for client, each in received.items():
        place = next((at for at, state in enumerate(states) if _same(state, each)), len(states))
        if place == len(states):
            states.append(each)
        table.append(
            {"client": client, "state": place, "weight": weights.get(client)} | asdict(orders[client])
        )
    head = body(clients=json.dumps(table), bounds=json.dumps(dict(bounds)))
    nothing = np.random.default_rng(0)  # float32 is not rounded
    return [head, *(train_record(state, "float32", nothing, strategy_code) for state in states)]


def read_edge_order(records: Sequence[RecordDict]) -> tuple[dict[int, Received], dict[int, ClientOrder]]:
    """Return what each client receives, and its own part of the order, from the order to its edge."""
    states = [read_train(record) for record in records[1:]]
    received, orders = {}, {}
    for row in json.loads(values_of(records[0])["clients"]):
        client = row.pop("client")
        received[client] = states[row.pop("state")]
        row.pop("weight")
        orders[client] = ClientOrder(**row)
    return received, orders


def edge_update_record(
    mean: Mapping[str, Tensor],
    counts: Iterable[Update],
    sizes: Mapping[int, Mapping[str, float]],
    refused: Mapping[int, str],
) -> RecordDict:
    """Return what an edge sends after a round.

    Args:
        mean: The mean of its clients' tensors; empty if it forwards their updates, or has none.
        counts: The accepted updates, whose tensors are not sent.
        sizes: The sizes that the bounds of updates follow from, by client.
        refused: Why an update was left out, by client.
    """
    rows = [{name: getattr(update, name) for name in _COUNTS} for update in counts]
    told = (
        json.dumps(rows),
        json.dumps({str(k): dict(v) for k, v in sizes.items()}),
        json.dumps(dict(refused)),
    )
    if not mean:
        return body(counts=told[0], sizes=told[1], refused=told[2])
    return tensors_record(mean, counts=told[0], sizes=told[1], refused=told[2])


def read_edge_update(record: RecordDict) -> tuple[list[Update], dict[str, Tensor]]:
    """Return the counts of an edge's clients, as updates without tensors, and the mean of their tensors."""
    rows = json.loads(values_of(record)["counts"])
    counts = [Update(**{**row, "tensors": {}}) for row in rows]
    return counts, read_tensors(record) if record.keys() != {BODY} else {}


def _same(first: Received, second: Received) -> bool:
    if first.shared.header() != second.shared.header() or first.round != second.round:
        return False
    mine, other = ({**each.shared.tensors(), **each.extra} for each in (first, second))
    return mine.keys() == other.keys() and all(
        tensor is other[name] or torch.equal(tensor, other[name]) for name, tensor in mine.items()
    )
