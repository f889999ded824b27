"""Time and memory of planning, from 1,000 to 100,000 tasks, each size in a process of its own; prints JSON.

    python -m experiments.planner.scale --record experiments/records/planner/scale.json

Tasks are `instances.large`, the tolerance .1. Seconds are those of the processor, on one thread; "by the clock" depends
on what else the machine does. Memory is the peak of the process, with all that Python and the tasks take. Ward's
linkage (SciPy) takes all pairs, so it ends early; its threshold tau is chosen among 20.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from experiments.planner.instances import damage_curve, large
from experiments.planner.output import write
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import plan_cost
from fedaigc.planning.planners.registry import planner
from fedaigc.planning.setting import Setting

SIZES = {
    "greedy_tree": (1_000, 3_000, 10_000, 30_000, 100_000),
    "ward": (1_000, 3_000, 10_000),
}
TOLERANCE = 0.1


def one(name: str, number: int, seed: int) -> dict[str, float | int | str]:
    """Plan once, in this process."""
    tasks, setting = large(number, seed), Setting(damage_curve(), TOLERANCE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    plan = planner(name)(tasks, setting)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults = check_plan(plan, tasks, setting)
    if faults:
        raise RuntimeError(f"{name}, {number} tasks: {faults[:5]}")
    return {
        "planner": name,
        "tasks": number,
        "different": len(np.unique(tasks.vectors, axis=0)),
        "CPU seconds": cpu,
        "seconds by the clock": wall,
        "peak MB": peak / 1e3,
        "peak MB before planning": before / 1e3,
        "saved": plan_cost(plan, tasks, setting).saved,
        "nodes": len(plan.nodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=100_000, help="the largest size")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("PLANNER", "TASKS"), help="print one row")
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(options.one[0], int(options.one[1]), options.seed)))
        return
    rows = []
    for name, sizes in SIZES.items():
        for number in sizes:
            if number <= options.most:
                call = ["--one", name, str(number), "--seed", str(options.seed)]
                done = subprocess.run(
                    [sys.executable, "-m", "experiments.planner.scale", *call],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                rows.append(json.loads(done.stdout))
                print(rows[-1], file=sys.stderr, flush=True)
    exponents = {}
    for name in SIZES:
        mine = [row for row in rows if row["planner"] == name]
        if len(mine) < 2:
            continue
        logs = [np.log([row[key] for row in mine]) for key in ("tasks", "different", "CPU seconds")]
        exponents[name] = {
            "by tasks": float(np.polyfit(logs[0], logs[2], 1)[0]),
            "by different tasks": float(np.polyfit(logs[1], logs[2], 1)[0]),
        }
    write(
        {"what": "time and memory of planning", "seed": options.seed, "exponents": exponents, "sizes": rows},
        options.record,
    )


if __name__ == "__main__":
    main()
