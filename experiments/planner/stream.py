"""A stream of arrivals: milliseconds a task, and the cost against plans from scratch; prints JSON.

    python -m experiments.planner.stream --record experiments/records/planner/stream.json

Tasks are `instances.large` in random order. They arrive as a Poisson process at `--rate` a second, wait at most
`--window` seconds, and one in `--withdrawn` leaves before. Seconds are those of the processor, for the arrival and all
departures before it. At every `--compare` arrivals the plan of all waiting tasks is compared with `greedy_tree` on the
same tasks.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from experiments.planner.instances import damage_curve, large
from experiments.planner.output import write
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import weighted_cost
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.setting import Setting
from fedaigc.planning.stream import Arrival, Departure, Stream
from fedaigc.rng import numpy_rng

TOLERANCE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=50.0, help="arrivals a second")
    parser.add_argument("--window", type=float, default=20.0, help="seconds that a task waits at most")
    parser.add_argument("--withdrawn", type=int, default=50, help="one in how many tasks is withdrawn")
    parser.add_argument("--compare", type=int, default=5_000, help="arrivals between comparisons")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    tasks, setting = large(options.tasks, options.seed), Setting(damage_curve(), TOLERANCE)
    random = numpy_rng(options.seed, "stream")
    times = np.cumsum(random.exponential(1 / options.rate, options.tasks))
    stream = Stream(setting, options.window)
    milliseconds, served, factors, evaluations, withdrawn = [], 0, [], 0.0, 0

    def serve(departures: list[Departure]) -> None:
        nonlocal served, evaluations
        for departure in departures:
            faults = check_plan(departure.plan, departure.tasks, setting)
            if faults:
                raise RuntimeError(f"{faults}")
            served += len(departure.tasks)
            evaluations += weighted_cost(departure.plan, departure.tasks, setting)

    for row, now in enumerate(times.tolist()):
        begun = time.process_time()
        departures = stream.depart(now)
        stream.arrive(Arrival(str(row), tasks.vectors[row], now))
        milliseconds.append(1e3 * (time.process_time() - begun))
        serve(departures)
        if options.withdrawn and row % options.withdrawn == options.withdrawn - 1:
            stream.withdraw(str(row))
            withdrawn += 1
        if row % options.compare == options.compare - 1:
            waiting = stream.plan()
            faults = check_plan(waiting.plan, waiting.tasks, setting)
            if faults:
                raise RuntimeError(f"{faults}")
            scratch = GreedyTree()(waiting.tasks, setting)
            costs = [weighted_cost(plan, waiting.tasks, setting) for plan in (waiting.plan, scratch)]
            factors.append({"waiting": len(stream), "cost": costs[0], "from scratch": costs[1]})
    serve(stream.depart(float(times[-1]) + options.window))
    if served + withdrawn != options.tasks or len(stream):
        raise RuntimeError(f"{served} served and {withdrawn} withdrawn of {options.tasks}")
    ratio = [each["cost"] / each["from scratch"] for each in factors]
    write(
        {
            "what": "a stream of arrivals",
            "tasks": options.tasks,
            "different": len(np.unique(tasks.vectors, axis=0)),
            "rate": options.rate,
            "window": options.window,
            "seed": options.seed,
            "served": served,
            "withdrawn": withdrawn,
            "milliseconds": {
                "median": float(np.median(milliseconds)),
                "99th percentile": float(np.quantile(milliseconds, 0.99)),
                "mean": float(np.mean(milliseconds)),
                "worst": float(np.max(milliseconds)),
            },
            "saved": 1 - evaluations / (setting.curve.steps * served),
            "cost against a plan from scratch": {
                "median": float(np.median(ratio)),
                "worst": float(np.max(ratio)),
                "comparisons": len(ratio),
            }
            if ratio
            else None,
            "comparisons": factors,
        },
        options.record,
    )


if __name__ == "__main__":
    main()
