"""Bytes on both hops, seconds and shared steps of a run without edges and with 1, 2 and 4; prints JSON.

    python -m experiments.edges.compare --record experiments/records/edges/compare.json

Each run has one round of a strategy and draws the prompts of all devices. Its bytes are those that Flower serializes.
They do not depend on the number of local steps, so one step is taken. With edges, each edge serves its own devices.

Seconds follow from the bytes of the round and stated assumptions. Devices are spread over a disc of radius `--radius`,
which is divided into one cell a site: without edges one site, whose server is behind the backhaul; with edges one site
an edge. A device is at two thirds of the radius of its cell, the mean distance in a disc. The devices of a cell take
turns; cells work at the same time. The rate of a device is that of the fastest scheme with a block error rate of at
most 10 %, at the SNR of the link budget, with the powers of the device profiles. The backhaul has `--backhaul-mbit`
megabits a second, which all edges share. Computing takes no time, nor do retransmissions.
"""

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

from experiments.planner.output import write
from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.provision import SceneClient, provision_scenes, scene_clients
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.output.records import RunRecord
from fedaigc.federation.runtime.launcher import simulate
from fedaigc.rng import derived_seed
from fedaigc.strategy.edge_sums import edge_half
from fedaigc.wireless.adaptive import choose_scheme
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE

EDGES = (0, 1, 2, 4)
STRATEGIES = ("fedit", "flexlora")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=2, help="prompts of a device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--radius", type=float, default=400.0, help="metres of the disc")
    parser.add_argument("--bandwidth-hz", type=float, default=20e6, help="of a cell")
    parser.add_argument("--backhaul-mbit", type=float, default=100.0, help="megabits a second")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    rows = []
    for strategy in STRATEGIES:
        for edges in EDGES:
            with tempfile.TemporaryDirectory() as folder:
                # the prompts are drawn once: they do not depend on the strategy
                prompts = options.prompts if strategy == STRATEGIES[0] else 0
                done = _run(Path(folder), strategy, edges, options, prompts)
            rows.append(_row(done, strategy, edges, options))
    settings = {name: value for name, value in vars(options).items() if name != "record"}
    write({"what": "one level against several edges", **settings, "rows": rows}, options.record)


def _run(folder: Path, strategy: str, edges: int, options: argparse.Namespace, prompts: int) -> RunRecord:
    clients = [
        SceneClient(
            client.style,
            client.num_images,
            tuple(
                row["caption"]
                for row in scenes_dataset(
                    prompts, derived_seed(options.seed, "prompts", at), styles=(client.style,)
                )
            )
            if prompts
            else (),
        )
        for at, client in enumerate(scene_clients(options.clients, 1))
    ]
    provision_scenes(folder / "homes", clients, options.seed)
    generation = {"enabled": bool(prompts), "scorer": "none", "topology": "edges" if edges else "edge"}
    return simulate(
        parse_config(
            {
                "homes": folder / "homes",
                "output": folder / "out",
                "seed": options.seed,
                "num_clients": options.clients,
                "rounds": {"count": 1, "strategy": strategy},
                "training": {"local_steps": 1, "personal_steps": 0, "batch_size": 1},
                "edges": {"count": edges} if edges else None,
                "generation": generation,
            }
        )
    )


def _row(done: RunRecord, strategy: str, edges: int, options: argparse.Namespace) -> dict[str, Any]:
    first = done.rounds[0]
    if first.refused:
        raise RuntimeError(f"{first.refused}")
    air = _totals(first.sent_bytes)
    # without edges, everything that the site receives goes on to the server
    backhaul = _totals(first.backhaul_bytes) if edges else air
    sites, sizes = max(1, edges), [0] * max(1, edges)
    for client in range(options.clients):
        sizes[client * sites // options.clients] += 1
    distance = 2 / 3 * options.radius / math.sqrt(sites)
    radio = {
        direction: max(sizes)
        * 8
        * air[direction]
        / options.clients
        / _rate(power, distance, options.bandwidth_hz)
        for direction, power in (("down", EDGE_SERVER.tx_power_w), ("up", PHONE.tx_power_w))
    }
    fixed = {direction: 8 * count / (1e6 * options.backhaul_mbit) for direction, count in backhaul.items()}
    row = {
        "strategy": strategy,
        "sends": edge_half(strategy).sends,
        "edges": edges,
        "air bytes": air,
        "backhaul bytes": backhaul,
        "radio s": radio,
        "backhaul s": fixed,
        "round s": sum(radio.values()) + sum(fixed.values()),
    }
    if done.generation is not None and done.generation.groups:
        groups = done.generation.groups
        whole = _totals(done.backhaul_bytes if edges else done.sent_bytes)
        row["generation"] = {
            "prompts": sum(len(group.tasks) for group in groups),
            "shared": sum(len(group.tasks) for group in groups if group.num_shared_steps),
            "steps": sum(group.evaluations for group in groups),
            "steps alone": sum(group.solo_evaluations for group in groups),
            "backhaul bytes": {direction: whole[direction] - backhaul[direction] for direction in whole},
        }
    return row


def _totals(counted: dict[str, dict[str, int]]) -> dict[str, int]:
    return {direction: sum(kinds.values()) for direction, kinds in counted.items()}


def _rate(power_w: float, distance_m: float, bandwidth_hz: float) -> float:
    """Return payload bits a second of the fastest scheme that the SNR at this distance supports."""
    link = RadioLink(distance_m=distance_m, tx_power_w=power_w, bandwidth_hz=bandwidth_hz)
    return choose_scheme(link.snr_db).efficiency * link.symbol_rate_hz


if __name__ == "__main__":
    main()
