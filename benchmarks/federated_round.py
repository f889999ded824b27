"""A federated round in process, compared with the same local steps in a bare PyTorch loop and a plain Flower app.

    python benchmarks/federated_round.py [--clients 8] [--steps 10] [--rounds 7]

All three train the shared stage of the embedded model with rank-8 factors on the same layers, at batch 8, on the
same number of pictures, one client after the other, in one thread. The bare loop keeps the pipeline, the encoded
pictures and one adapter in memory and copies each client's factors in and out. The plain app (plain_flower_app.py)
is written like Flower's examples: it loads its pipeline and pictures in each message and sends each tensor as a
separate array. Their rounds alternate; the first of each is warm-up. Prints JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))  # plain_flower_app is in the folder of this file

RANK, RATE, IMAGES, SEED = 8, 1e-3, 32, 0


def fedaigc_rounds(folder: Path, clients: int, steps: int, rounds: int) -> Iterator[float]:
    """Yield the seconds of each federated round, including messages, checks, checkpoint and disk."""
    from fedaigc.device.provision import provision_scenes, scene_clients
    from fedaigc.federation.client.client_app import app
    from fedaigc.federation.config.run_config import parse_config
    from fedaigc.federation.runtime.launcher import in_process_run
    from fedaigc.federation.runtime.local_grid import LocalGrid
    from fedaigc.federation.server.roster import open_roster
    from fedaigc.federation.server.rounds import run_rounds
    from fedaigc.federation.server.server_app import initial_shared_state
    from fedaigc.strategy.registry import load_strategy

    provision_scenes(folder / "homes", scene_clients(clients, IMAGES), SEED)
    config = parse_config(
        {
            "homes": folder / "homes",
            "output": folder / "output",
            "num_clients": clients,
            "adapter": {"rank": RANK},
            "rounds": {"count": 1, "strategy": "fedit"},
            "training": {"local_steps": steps, "personal_steps": 0, "learning_rate": RATE},
            "generation": {"enabled": False},
        }
    )
    with in_process_run(config) as run_id:
        grid = LocalGrid(app, num_clients=clients, run_config=config.to_run_config(), run_id=run_id)
        shared, rule = initial_shared_state(config), load_strategy("fedit")
        roster = open_roster(grid, num_clients=clients, base_hash=shared.base_hash)
        for number in range(1, rounds + 1):
            one = config.model_copy(update={"rounds": config.rounds.model_copy(update={"count": number})})
            began = time.perf_counter()
            shared = run_rounds(roster, shared, rule, one, lambda done, state: None, first=number)
            yield time.perf_counter() - began


def bare_rounds(clients: int, steps: int, rounds: int) -> Iterator[float]:
    """Yield the seconds of the local steps alone, with an average of the factors."""
    from plain_flower_app import load_data, load_model, train_steps

    from fedaigc import assets

    pipe = load_model(str(assets.path("model")), RANK)
    data = [load_data(pipe, client, IMAGES, SEED) for client in range(clients)]
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    state = [p.detach().clone() for p in parameters]
    for _ in range(rounds):
        began = time.perf_counter()
        sums = [torch.zeros_like(p) for p in state]
        for latents, text in data:
            with torch.no_grad():
                for parameter, value in zip(parameters, state, strict=True):
                    parameter.copy_(value)
            train_steps(pipe, latents, text, steps, RATE, 500, 1000)
            for total, parameter in zip(sums, parameters, strict=True):
                total.add_(parameter.detach(), alpha=1 / clients)
        state = sums
        yield time.perf_counter() - began


def flower_rounds(clients: int, steps: int, rounds: int) -> Iterator[float]:
    """Yield the seconds of each round of the plain app under Flower's own FedAvg."""
    from flwr.app import ArrayRecord, ConfigRecord
    from flwr.serverapp.strategy import FedAvg
    from peft import get_peft_model_state_dict
    from plain_flower_app import app, load_model

    from fedaigc import assets
    from fedaigc.federation.config.run_config import parse_config
    from fedaigc.federation.runtime.launcher import in_process_run
    from fedaigc.federation.runtime.local_grid import LocalGrid

    model = str(assets.path("model"))
    run_config: dict[str, Any] = {
        "model": model,
        "rank": RANK,
        "num-images": IMAGES,
        "seed": SEED,
        "steps": steps,
        "learning-rate": RATE,
    }
    arrays = ArrayRecord(get_peft_model_state_dict(load_model(model, RANK).unet))
    with in_process_run(parse_config({"homes": "none", "output": "none"})) as run_id:
        grid = LocalGrid(app, num_clients=clients, run_config=run_config, run_id=run_id)
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=clients)
        for number in range(1, rounds + 1):
            began = time.perf_counter()
            replies = grid.send_and_receive(strategy.configure_train(number, arrays, ConfigRecord(), grid))
            found, _ = strategy.aggregate_train(number, replies)
            assert found is not None, "the plain app failed"
            arrays = found
            yield time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        size = (options.clients, options.steps, options.rounds + 1)
        ways: dict[str, Callable[[], Iterator[float]]] = {
            "bare loop": lambda: bare_rounds(*size),
            "fedaigc": lambda: fedaigc_rounds(Path(folder), *size),
            "plain Flower app": lambda: flower_rounds(*size),
        }
        running = {name: start() for name, start in ways.items()}
        for number in range(options.rounds + 1):
            for name, rounds in running.items():
                took = next(rounds)
                print(f"{name}: {took:.2f} s", file=sys.stderr)
                if number:
                    seconds.setdefault(name, []).append(took)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "options": vars(options),
                "seconds": seconds,
                "medians": medians,
                "fedaigc_over_bare": medians["fedaigc"] / medians["bare loop"],
                "plain_flower_over_fedaigc": medians["plain Flower app"] / medians["fedaigc"],
            },
            indent=1,
            sort_keys=True,
        )
    )


if __name__ == "__main__":
    main()
