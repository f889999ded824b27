"""Attack differential privacy: a device recomputes the noise from the run's configuration, and subtracts it.

    python -m experiments.privacy.dp_noise --output FILE.json

Real runs of the embedded model in this process: three clients, z = 1. The attacker is one of the devices: it has the
run's whole configuration (at b8a6c4d the server sends it to every device, including the seed), and the shared state
before and after the first round. The true mean of the clipped updates, which it must not learn, is taken from the
server to score the attack.

An attack on a run succeeds if the correlation of the estimate with the true mean is above 0.5. Chance is the success
with the noise of another seed than the run's. With `insecure_seed` the attack must succeed, since its failure elsewhere
would otherwise prove nothing.

To run the code of another checkout, give the path of its package, e.g. PYTHONPATH=OTHER python
experiments/privacy/dp_noise.py.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.progress import Progress

from fedaigc.data.scenes import scenes_dataset
from fedaigc.data.sprites import STYLES
from fedaigc.device.device import Device
from fedaigc.errors import UserError
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire.messages import read_train
from fedaigc.metrics.intervals import proportion
from fedaigc.rng import numpy_rng
from fedaigc.strategy.flower.rule import FlowerRule
from fedaigc.strategy.registry import load_strategy
from fedaigc.study.execute.provenance import commit
from fedaigc.study.results.statistics import t_interval

CLIENTS, ATTACKER = 3, 0
OPTIONS: dict[str, Any] = {"dp": "server-fixed", "noise_multiplier": 1.0, "clipping_norm": 0.02}
SUCCESS = 0.5

Tensors = dict[str, np.ndarray]


class Listening(LocalGrid):
    """A grid that records the run's configuration and every training order that one device receives."""

    def __init__(self, config: FederationConfig, run_id: int) -> None:
        run_config = config.to_run_config()
        super().__init__(app, num_clients=CLIENTS, run_config=run_config, run_id=run_id)
        self.received: list[Tensors] = []
        self.config = config
        (self._node,) = (
            node for node, each in self._contexts.items() if each.node_config["partition-id"] == ATTACKER
        )

    def push_messages(self, messages: Any) -> list[str]:
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == "train" and message.metadata.dst_node_id == self._node:
                tensors = read_train(message.content).shared.tensors()
                self.received.append({name: tensor.numpy().copy() for name, tensor in tensors.items()})
        return super().push_messages(messages)


def run(options: dict[str, Any], seed: int, folder: Path) -> tuple[Listening, Tensors]:
    """Execute two rounds, and return the attacker's knowledge and the true mean of round 1's clipped changes."""
    config = parse_config(
        {
            "homes": folder / "homes",
            "output": folder / f"{seed}-{len(options)}",
            "seed": seed,
            "num_clients": CLIENTS,
            "rounds": {"count": 2, "strategy": "fedavg", "options": options},
            "training": {"local_steps": 1, "personal_steps": 0},
            "generation": {"enabled": False},
        }
    )
    pipe, base_hash = base_model(config.model)
    for client in range(CLIENTS):
        home = config.home(client)
        device = Device(home, pipe, base_hash=base_hash, taxonomy=taxonomy(), seed=client)
        if not len(device.images):
            device.add_images(scenes_dataset(8, client, styles=(STYLES[client],)))
    sent: list[Tensors] = []
    add = FlowerRule.add

    def listening_add(rule: FlowerRule, update: Any) -> None:
        sent.append({name: tensor.numpy().copy() for name, tensor in update.tensors.items()})
        add(rule, update)

    with patch.object(FlowerRule, "add", listening_add), in_process_run(config) as run_id:
        grid = Listening(config, run_id)
        serve(grid, config)
    before = grid.received[0]
    clipped = []
    for update in sent[:CLIENTS]:
        change = {name: value.astype(float) - before[name] for name, value in update.items()}
        norm = np.sqrt(sum(float((value**2).sum()) for value in change.values()))
        clipped.append({n: v * min(1.0, OPTIONS["clipping_norm"] / norm) for n, v in change.items()})
    return grid, {name: np.mean([each[name] for each in clipped], axis=0) for name in before}


def regenerated(shapes: Sequence[tuple[int, ...]], config: FederationConfig, seed: int) -> list[np.ndarray]:
    """Return the noise of round 1, computed by the version of the code that the configuration belongs to."""
    options = config.rounds.options
    deviation = float(options["noise_multiplier"]) * float(options["clipping_norm"]) / CLIENTS
    if "insecure_seed" in options:
        draw = numpy_rng(int(options["insecure_seed"]), "dp", seed, 1)
        return [deviation * draw.standard_normal(shape) for shape in shapes]
    # as at commit b8a6c4d
    old = np.random.RandomState(numpy_rng(seed, "dp", 1).integers(2**32, size=8))
    return [old.normal(0, deviation, shape) for shape in shapes]


def attack(grid: Listening, seed_offset: int = 0) -> np.ndarray:
    """Return the attacker's estimate of the mean. A nonzero `seed_offset` selects the noise of another run's seed."""
    config = grid.config
    before, after = grid.received[:2]
    noise = regenerated([before[name].shape for name in before], config, config.seed + seed_offset)
    return np.concatenate(
        [
            (after[name].astype(float) - before[name] - drawn).ravel()
            for name, drawn in zip(before, noise, strict=True)
        ]
    )


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean correlation with a 95 % t interval over runs, and the share of successes with Wilson's."""
    return {
        "correlation": t_interval(values).as_dict(),
        "success": proportion([value > SUCCESS for value in values]).as_dict(),
        "correlations": [round(value, 6) for value in values],
    }


def main() -> None:
    """Attack every run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    code = commit()  # read the commit when the modules are loaded
    conditions: dict[str, dict[str, Any]] = {"default": OPTIONS}
    try:
        load_strategy("fedavg", OPTIONS | {"insecure_seed": 3})
        conditions["insecure_seed"] = OPTIONS | {"insecure_seed": 3}
    except UserError:
        pass  # the code from before the option
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        task = progress.add_task("runs", total=len(conditions) * arguments.runs)
        for name, options in conditions.items():
            by_attack: dict[str, list[float]] = {"attack": [], "chance": []}
            for seed in range(arguments.runs):
                grid, mean = run(options, seed, Path(folder))
                true = np.concatenate([value.ravel() for value in mean.values()])
                for kind, offset in (("attack", 0), ("chance", 1000)):
                    by_attack[kind].append(float(np.corrcoef(attack(grid, offset), true)[0, 1]))
                progress.advance(task)
            found[name] = {kind: summary(values) for kind, values in by_attack.items()}
            for kind, each in found[name].items():
                progress.console.print(f"{name}, {kind}: {each['correlation']} {each['success']}")
    record = {
        "command": "python -m experiments.privacy.dp_noise",
        **code,
        "clients": CLIENTS,
        "values": int(true.size),
        "options": OPTIONS,
        "success_is": f"correlation with the true mean above {SUCCESS}",
        "results": found,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
