"""100 clients, 10 of them per round, 20 rounds: in process, and on Ray with 2 workers; the weights must agree.

    python benchmarks/hundred_clients.py [--steps 2]

Both runs use the embedded model, 8 pictures per client and one thread per process. Prints JSON with the seconds of
each run and of its rounds; Ray's start counts in the run only. The exit status is 1 if the weights differ.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fedaigc.device.provision import provision_scenes, scene_clients
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.runtime.launcher import simulate

CLIENTS, DRAWN, ROUNDS, IMAGES = 100, 10, 20, 8


def config(folder: Path, backend: str, steps: int) -> FederationConfig:
    """Return the configuration of the run for one backend, with separate homes."""
    provision_scenes(folder / backend / "homes", scene_clients(CLIENTS, IMAGES), 0)
    return parse_config(
        {
            "homes": folder / backend / "homes",
            "output": folder / backend / "output",
            "num_clients": CLIENTS,
            "backend": backend,
            "workers": 2 if backend == "ray" else 1,
            "rounds": {"count": ROUNDS, "strategy": "fedit", "clients": DRAWN},
            "training": {"local_steps": steps, "personal_steps": 0},
            "generation": {"enabled": False},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="local steps of a client in a round")
    options = parser.parse_args()
    report: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in ("in-process", "ray"):
            run = config(Path(folder), backend, options.steps)
            began = time.perf_counter()
            record = simulate(run)
            report[backend] = {
                "seconds": time.perf_counter() - began,
                "round_seconds_median": statistics.median(done.seconds for done in record.rounds),
                "shared_hash": record.shared_hash,
            }
    same = len({values["shared_hash"] for values in report.values()}) == 1
    print(json.dumps({"options": vars(options), "runs": report, "same_weights": same}, indent=1))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
