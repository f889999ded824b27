"""The cost of every planner against the optimum, on random instances of at most 12 tasks; prints JSON.

    python -m experiments.planner.gap --optima runs/planner/optima.jsonl \\
        --record experiments/records/planner/gap.json
    python -m experiments.planner.gap --first 1000 --record experiments/records/planner/gap_fresh.json

Cost: denoiser evaluations. An instance is a seed of `instances.small`. Constants of `greedy_tree` were chosen on some
of the seeds below 200; those from 1,000 on were first used for the second record. `--optima` keeps each optimum when it
is found, and continues there. Where the solver's time was not enough, the record has its bound, and such instances
count apart.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.planner.instances import MOST_CANDIDATES, small
from experiments.planner.output import write
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import weighted_cost
from fedaigc.planning.planners.optimal import Optimal
from fedaigc.planning.planners.registry import PLANNERS

OTHERS = [name for name in PLANNERS if name != "optimal"]


def optimum(seed: int, seconds: float) -> dict[str, Any]:
    """Return what the optimum of an instance saves, the solver's bound, and its time."""
    tasks, setting = small(seed)
    cpu, wall = time.process_time(), time.perf_counter()
    found = Optimal(seconds).solve(tasks, setting)
    faults = check_plan(found.plan, tasks, setting)
    if faults:
        raise RuntimeError(f"instance {seed}: {faults}")
    return {
        "seed": seed,
        "tasks": len(tasks),
        "saved": found.saved,
        "bound": found.bound,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
    }


def excess(costs: list[float], optima: list[float]) -> dict[str, float]:
    """Return by how much costs exceed the optimum, as shares of it."""
    over = np.array(costs) / np.array(optima) - 1
    return {
        "mean": float(over.mean()),
        "median": float(np.median(over)),
        "90th percentile": float(np.quantile(over, 0.9)),
        "worst": float(over.max()),
        "optimal": float((over < 1e-9).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first instance")
    parser.add_argument("--seconds", type=float, default=30.0, help="time limit of the solver, by the clock")
    parser.add_argument("--optima", type=Path, help="file of optima, one JSON object a line")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    known: dict[int, dict[str, Any]] = {}
    if options.optima is not None and options.optima.exists():
        for line in options.optima.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["seed"] not in known or row["bound"] - row["saved"] < 1e-9:
                known[row["seed"]] = row
    rows = []
    for seed in range(options.first, options.first + options.instances):
        if seed not in known:
            known[seed] = optimum(seed, options.seconds)
            if options.optima is not None:
                options.optima.parent.mkdir(parents=True, exist_ok=True)
                with options.optima.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(known[seed]) + "\n")
        tasks, setting = small(seed)
        plans = {name: PLANNERS[name]()(tasks, setting) for name in OTHERS}
        faults = [fault for plan in plans.values() for fault in check_plan(plan, tasks, setting)]
        if faults:
            raise RuntimeError(f"instance {seed}: {faults}")
        alone = setting.curve.steps * len(tasks)
        found = known[seed]
        rows.append(
            {
                "seed": seed,
                "tasks": len(tasks),
                "tolerance": setting.tolerance,
                "alone": alone,
                "optimum": alone - found["saved"],
                "lower bound": alone - found["bound"],
                "solver's CPU seconds": round(found["cpu"], 2),
            }
            | {name: weighted_cost(plan, tasks, setting) for name, plan in plans.items()}
        )
    proved = [row for row in rows if row["optimum"] - row["lower bound"] < 1e-9]
    open_ones = [row for row in rows if row not in proved]
    write(
        {
            "what": "denoiser evaluations of each planner against the optimum",
            "instances": len(rows),
            "first": options.first,
            "most candidates": MOST_CANDIDATES,
            "proved": len(proved),
            "excess": {
                name: excess([row[name] for row in proved], [row["optimum"] for row in proved])
                for name in OTHERS
            },
            "not proved": [
                {
                    "seed": row["seed"],
                    "greedy_tree": row["greedy_tree"],
                    "solver": row["optimum"],
                    "lower bound": row["lower bound"],
                }
                for row in open_ones
            ],
            "rows": rows,
        },
        options.record,
    )


if __name__ == "__main__":
    main()
