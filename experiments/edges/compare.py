"""Bytes on both hops, seconds and shared steps without edges and with 1, 2 and 4; prints JSON.

    python -m experiments.edges.compare --record experiments/records/edges/compare.json

A round exchanges the messages of a run, with the embedded model's factors, as Flower serializes them. Nothing is
trained: a client returns what it received, since the values of an update do not change its size. For a generation,
the devices' prompts are captions of Scenes. They are grouped as in a run, by the concepts that they disclose, and the
denoising steps are those of the plan; nothing is drawn.

Seconds follow from the bytes of the round and stated assumptions. Devices are spread over a disc of radius `--radius`,
which is divided into one cell a site: without edges one site, whose server is behind the backhaul; with edges one site
an edge. A device is at two thirds of the radius of its cell, the mean distance in a disc. The devices of a cell take
turns; cells work at the same time. The rate of a device is that of the fastest scheme with a block error rate of at
most 10 %, at the SNR of the link budget, with the powers of the device profiles. The backhaul has `--backhaul-mbit`
megabits a second, which all edges share. The hops follow one another. Computing takes no time, nor do retransmissions.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from experiments.planner.output import write
from fedaigc.collaboration.planner import planned_evaluations
from fedaigc.data.scenes import scenes_dataset
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.preloaded import taxonomy
from fedaigc.federation.server.edges.aggregation import EdgeRound
from fedaigc.federation.server.initial_state import initial_state
from fedaigc.federation.server.server_rule import server_rule
from fedaigc.federation.server.sharing.by_topology import groups_by_topology
from fedaigc.federation.wire.ledger import Ledger
from fedaigc.federation.wire.messages import ClientOrder, train_record, update_record
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.signature import disclose
from fedaigc.strategy.edge_sums import edge_half
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.rule import Update
from fedaigc.wireless.adaptive import choose_scheme
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE

EDGES = (0, 1, 2, 4)
STRATEGIES = ("fedit", "flexlora")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=4, help="prompts of a device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--radius", type=float, default=400.0, help="metres of the disc")
    parser.add_argument("--bandwidth-hz", type=float, default=20e6, help="of a cell")
    parser.add_argument("--backhaul-mbit", type=float, default=100.0, help="megabits a second")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    rounds = [
        _seconds(_round(_config(strategy, edges, options)), strategy, edges, options)
        for strategy in STRATEGIES
        for edges in EDGES
    ]
    generations = [_generation(_config("fedit", edges, options), options) for edges in EDGES]
    settings = {name: value for name, value in vars(options).items() if name != "record"}
    write(
        {"what": "one level against several edges", **settings, "rows": rounds, "generations": generations},
        options.record,
    )


def _config(strategy: str, edges: int, options: argparse.Namespace) -> FederationConfig:
    return parse_config(
        {
            "homes": "homes",
            "output": "out",
            "seed": options.seed,
            "num_clients": options.clients,
            "rounds": {"strategy": strategy},
            "edges": {"count": edges} if edges else None,
            "generation": {"topology": "edges" if edges else "edge"},
        }
    )


def _round(config: FederationConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes between devices and edges, or the server, and those that cross the backhaul."""
    air, backhaul, rule = Ledger(), Ledger(), server_rule(config)
    code, random = strategy_code(config.rounds.strategy), np.random.default_rng(config.seed)
    shared = initial_state(config, rule)
    received = {c: rule.download(shared, c, config.rank(c), 1) for c in range(config.num_clients)}
    own = {client: ClientOrder(config.local_steps(client), client) for client in received}
    edges = EdgeRound(config, rule, backhaul, 1, {}, {}) if config.edges is not None else None
    if edges is not None:
        received, own = edges.send(received, own)
    rule.start(shared, 1)
    for client, had in received.items():
        air.add("down", train_record(had, "float32", random, code, own[client]))
        losses = {"shared_loss": 0.1, "personal_loss": 0.1}
        tensors = rule.sent(had.shared, 1)
        update = Update(client, 96, config.local_steps(client), tensors, had.shared.rank, losses)
        reply = update_record(update, had, "float32", random)
        air.add("up", reply)
        if edges is not None:
            edges.add(update, {"change": 0.1}, reply)
    if edges is None:
        # everything that the site receives goes on to the server
        return _totals(air), _totals(air)
    edges.finish({})
    return _totals(air), _totals(backhaul)


def _seconds(
    counted: tuple[dict[str, int], dict[str, int]], strategy: str, edges: int, options: argparse.Namespace
) -> dict[str, Any]:
    air, backhaul = counted
    sites = max(1, edges)
    largest = math.ceil(options.clients / sites)
    distance = 2 / 3 * options.radius / math.sqrt(sites)
    radio = {
        way: largest * 8 * air[way] / options.clients / _rate(power, distance, options.bandwidth_hz)
        for way, power in (("down", EDGE_SERVER.tx_power_w), ("up", PHONE.tx_power_w))
    }
    fixed = {way: 8 * count / (1e6 * options.backhaul_mbit) for way, count in backhaul.items()}
    return {
        "strategy": strategy,
        "sends": edge_half(strategy).sends,
        "edges": edges,
        "air bytes": air,
        "backhaul bytes": backhaul,
        "radio s": radio,
        "backhaul s": fixed,
        "round s": sum(radio.values()) + sum(fixed.values()),
    }


def _generation(config: FederationConfig, options: argparse.Namespace) -> dict[str, Any]:
    settings, graph = config.generation, taxonomy()
    captions = [row["caption"] for row in scenes_dataset(options.clients * options.prompts, options.seed)]
    owners = {f"{at:016x}": at % options.clients for at in range(len(captions))}
    signatures: dict[str, Disclosed | None] = {
        task: disclose(parse(caption, graph), settings.policy, graph, settings.min_public_prompts)
        for task, caption in zip(owners, captions, strict=True)
    }
    groups = groups_by_topology(signatures, owners, config)
    steps = settings.num_inference_steps
    shared = [group for group in groups if len(group.members) > 1]
    taken = [[settings.num_shared_steps if group in shared else 0] * len(group.members) for group in groups]
    return {
        "edges": config.edges.count if config.edges is not None else 0,
        "prompts": len(captions),
        "shared": sum(len(group.members) for group in shared),
        "groups": len(shared),
        "steps": sum(planned_evaluations(each, steps) for each in taken),
        "steps alone": steps * len(captions),
    }


def _totals(ledger: Ledger) -> dict[str, int]:
    return {direction: sum(kinds.values()) for direction, kinds in ledger.totals().items()}


def _rate(power_w: float, distance_m: float, bandwidth_hz: float) -> float:
    """Return payload bits a second of the fastest scheme that the SNR at this distance supports."""
    link = RadioLink(distance_m=distance_m, tx_power_w=power_w, bandwidth_hz=bandwidth_hz)
    return choose_scheme(link.snr_db).efficiency * link.symbol_rate_hz


if __name__ == "__main__":
    main()
