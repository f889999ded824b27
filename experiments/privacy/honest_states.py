"""Measure how far honest training changes a shared state, by the measures that devices limit (`device.acceptance`).

    python -m experiments.privacy.honest_states --output FILE.json

Trains the embedded model on homes of Scenes with several strategies and learning rates, and prints, after each of
some rounds, the largest relative change of a layer and the change of the public picture. The defaults of
`OwnerLimits` are above the printed values.
"""

import argparse
import json
import tempfile
from pathlib import Path

from rich.progress import Progress

from fedaigc.data.scenes import scenes_dataset
from fedaigc.data.sprites import STYLES
from fedaigc.device.acceptance import picture_change, weight_changes
from fedaigc.device.device import Device
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.runtime.launcher import run_in_process

# strategy and learning rate: the default, and one several times larger that was best in a tuning
ROWS = (
    ("fedit", 1e-3),
    ("fedit", 4e-3),
    ("full_weights", 1e-3),
    ("flora", 1e-3),
    ("fedex_lora", 1e-3),
    ("scaffold", 1e-3),
    ("fedavgm", 1e-3),
)


def measure(strategy: str, learning_rate: float, rounds: int, images: int, folder: Path) -> dict[str, float]:
    """Measure both changes after `rounds` rounds of three clients."""
    config = parse_config(
        {
            "homes": folder / "homes",
            "output": folder / f"{strategy}-{learning_rate}",
            "num_clients": 3,
            "rounds": {"count": rounds, "strategy": strategy},
            "training": {"personal_steps": 0, "learning_rate": learning_rate},
            "generation": {"enabled": False},
        }
    )
    pipe, base_hash = base_model(config.model)
    for client in range(config.num_clients):
        device = Device(config.home(client), pipe, base_hash=base_hash, taxonomy=taxonomy(), seed=client)
        if not len(device.images):
            device.add_images(scenes_dataset(images, client, styles=(STYLES[client],)))
    run_in_process(config)
    shared: SharedState = load_shared_state(config.output)
    changes = weight_changes(pipe, shared)
    return {
        "weight_change": max(changes.values()),
        "picture_change": picture_change(pipe, shared, base_hash),
    }


def main() -> None:
    """Measure every row and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        task = progress.add_task("strategies", total=len(ROWS))
        for strategy, learning_rate in ROWS:
            row = measure(strategy, learning_rate, arguments.rounds, arguments.images, Path(folder))
            found.append({"strategy": strategy, "learning_rate": learning_rate, **row})
            progress.console.print(
                f"{strategy} at {learning_rate:g}: weights {row['weight_change']:.3f}, "
                f"picture {row['picture_change']:.3f}"
            )
            progress.advance(task)
    record = {"rounds": arguments.rounds, "images": arguments.images, "clients": 3, "rows": found}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
