"""Measure the norms of honest updates under the default configuration, for every strategy; prints JSON.

    python -m experiments.privacy.update_norms --output experiments/records/privacy/update_norms.json

One device with pictures of Scenes trains `--rounds` rounds of the default configuration (20 steps of the shared
stage, rank 8, learning rate 1e-3, condition dropout .1). The next state results from its update alone. Norms are those
of `fedaigc.device.training.update_clipping`, which a device clips to its owner's bound.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.progress import track

import fedaigc
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from fedaigc.data.scenes import draw_scenes
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.training.local_round import SharedStageWork
from fedaigc.device.training.update_clipping import update_norm
from fedaigc.diffusion.encoding import encode_images
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Update
from fedaigc.strategy.sources import strategy_names


def norms_of(strategy: str, pictures: int, rounds: int, learning_rate: float, seed: int) -> list[float]:
    """Return the norm of each round's update."""
    config = parse_config(
        {
            "homes": "homes",
            "output": "out",
            "seed": seed,
            "rounds": {"strategy": strategy},
            "training": {"learning_rate": learning_rate},
        }
    )
    pipe, _ = base_model(config.model)
    private = list(draw_scenes(pictures, seed, styles=("blob",)))
    data = encode_images(
        pipe, [image for _, image in private], [scene.caption for scene, _ in private], height=64, width=64
    )
    rule = load_strategy(strategy)
    rule.seed, rule.num_clients, rule.clients_per_round = seed, 1, 1
    shared = rule.initial(initial_shared_state(config, full_weights=rule.traits.full_weights))
    memory: dict[str, torch.Tensor] = {}
    found = []
    for number in range(1, rounds + 1):
        received = rule.download(shared, 0, config.adapter.rank, number)
        work = SharedStageWork(pipe, data, config.training, config.training.local_steps, seed, number)
        result = rule.client(work, received, memory)
        memory = dict(result.memory)
        found.append(round(update_norm(result.upload, received), 3))
        rule.start(shared, number)
        rank = received.shared.rank if result.rank is None else result.rank
        losses = {"shared_loss": sum(work.losses) / len(work.losses)}
        rule.add(Update(0, len(data), work.num_steps, dict(result.upload), rank, losses))
        shared = rule.finish()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--strategies", nargs="+", default=strategy_names())
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    options = parser.parse_args()
    one_thread()
    rows: dict[str, list[float]] = {}
    for name in track(options.strategies, description="strategies", console=PROGRESS_CONSOLE):
        rows[name] = norms_of(name, options.pictures, options.rounds, options.learning_rate, options.seed)
        PROGRESS_CONSOLE.print(name, rows[name])
    report = {
        "what": "L2 norms of honest updates by round",
        "fedaigc": fedaigc.__version__,
        "torch": torch.__version__,
        "pictures": options.pictures,
        "learning rate": options.learning_rate,
        "seed": options.seed,
        "largest": max(max(row) for row in rows.values() if row),
        "default bound": OwnerLimits().max_update_norm,
        "norms": rows,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
