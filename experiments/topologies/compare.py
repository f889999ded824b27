"""Steps, joules, seconds and bits of the four topologies on one set of prompts, on devices that move; prints JSON.

    python -m experiments.topologies.compare --images docs/images/topologies \\
        --record experiments/records/topologies/compare.json

The prompts are captions of Scenes, handed out to the devices in turn and grouped by the concepts that they disclose by
default. Devices move by random waypoint in a square, which begins anew for each seed; so do the channels and the costs
by which devices compute. The edge is in the middle, or four edges are in the middles of the quarters. Each generation
begins at one of several times of the trace. Shapes and step counts are those of Stable Diffusion v1-4 with 11 steps, 5
of them shared, and seconds and joules those of the built-in profiles: nothing is drawn. See
`experiments.topologies.session` for the link and the clock.

Messages by which devices agree on groups are counted in bits, but cost neither seconds nor joules. Not counted: those
between devices and an edge, and energy of devices that wait.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.planner.output import write
from experiments.topologies.counted import CountedMachines, plan_of
from experiments.topologies.movement import Movement
from experiments.topologies.picture import draw
from experiments.topologies.session import Setting, alone, generation, reach_db
from fedaigc.collaboration.topology import Topology
from fedaigc.data.scenes import scenes_dataset
from fedaigc.federation.preloaded import taxonomy
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

TOPOLOGIES: tuple[Topology, ...] = ("edge", "edges", "pair", "cluster")
STEPS, SHARED, FURTHER = 11, 5, 3
SPEEDS_M_S, PAUSE_S = (0.5, 5.0), 30.0
TIMES_S = (0.0, 600.0)
# while a generation goes on, devices keep moving
UNTIL_S = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--devices", type=int, default=16)
    parser.add_argument("--side", type=float, default=600.0, help="metres of the square")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--images", type=Path, help="folder for the plot")
    options = parser.parse_args()
    machines = CountedMachines(plan_of(STEPS), "fixed8-gray")
    rows: list[tuple[int, str, dict[str, float]]] = []
    for seed in range(options.seeds):
        for setting in _settings(options, seed):
            rows.append((seed, "alone", asdict(alone(setting))))
            for topology in TOPOLOGIES:
                for follows in (False, True):
                    name = f"{topology}, K follows the link" if follows else topology
                    found = generation(setting, topology, machines, follows=follows)
                    rows.append((seed, name, asdict(found)))
    values = {name: value for name, value in vars(options).items() if name not in ("record", "images")}
    record = {
        "what": "four topologies on moving devices: means for a prompt",
        **values,
        "steps": STEPS,
        "shared steps": SHARED,
        "further steps": FURTHER,
        "reach_db": round(reach_db(), 1),
        "ways": _estimates(rows),
    }
    write(record, options.record)
    if options.images is not None:
        draw(record, _settings(options, 0)[0], options.images / "compare.png")


def _settings(options: argparse.Namespace, seed: int) -> list[Setting]:
    graph = taxonomy()
    captions = [row["caption"] for row in scenes_dataset(options.prompts, 0)]
    owners = {f"{at:016x}": at % options.devices for at in range(len(captions))}
    side = options.side
    random = numpy_rng(seed, "devices")
    begin = Setting(
        plan=plan_of(STEPS),
        shared_steps=SHARED,
        further=FURTHER,
        signatures={
            task: disclose(parse(caption, graph), Policy.KIND, graph, 3)
            for task, caption in zip(owners, captions, strict=True)
        },
        owners=owners,
        costs={device: int(random.integers(0, 101)) for device in range(options.devices)},
        sites={
            "edge": np.array([[side / 2, side / 2]]),
            "edges": side * np.array([[x, y] for x in (0.25, 0.75) for y in (0.25, 0.75)]),
        },
        movement=Movement(options.devices, side, SPEEDS_M_S, PAUSE_S, UNTIL_S, random),
        at_s=0.0,
        seed=seed,
    )
    # other channels at each time
    return [replace(begin, at_s=at, seed=1000 * seed + int(at)) for at in TIMES_S]


def _estimates(rows: Sequence[tuple[int, str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Return the mean of each value with its interval over seeds, by way."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for _, name, _ in rows):
        own = [(seed, values) for seed, each, values in rows if each == name]
        seeds = [seed for seed, _ in own]
        found[name] = {
            value: clustered_mean([values[value] for _, values in own], seeds).as_dict()
            for value in own[0][1]
        }
    return found


if __name__ == "__main__":
    main()
