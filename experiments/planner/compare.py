"""What every planner saves of the denoiser evaluations, by prediction, at the same tolerance; prints JSON.

    python -m experiments.planner.compare --record experiments/records/planner/compare.json

Tasks are `instances.waiting`: Zipf popularity, exponent 1, over 1,000 prompts. Every plan keeps the predicted damage of
every member within .1, so that planners differ in cost alone. Nothing is denoised. 95 % intervals over seeds.
"""

import argparse
from pathlib import Path

from experiments.planner.instances import damage_curve, waiting
from experiments.planner.output import write
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import plan_cost
from fedaigc.planning.planners.registry import PLANNERS
from fedaigc.planning.setting import Setting

SIZES = (8, 32, 128)
TOLERANCE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    setting = Setting(damage_curve(), TOLERANCE)
    names = [name for name in PLANNERS if name != "optimal"]
    rows = []
    for number in SIZES:
        saved: dict[str, list[float]] = {name: [] for name in names}
        for seed in range(options.seeds):
            tasks = waiting(number, seed)
            for name in names:
                plan = PLANNERS[name]()(tasks, setting)
                faults = check_plan(plan, tasks, setting)
                if faults:
                    raise RuntimeError(f"{name}, {number} tasks, seed {seed}: {faults[:5]}")
                saved[name].append(plan_cost(plan, tasks, setting).saved)
        seeds = list(range(options.seeds))
        rows.append(
            {
                "tasks": number,
                "saved": {name: clustered_mean(each, seeds).as_dict() for name, each in saved.items()},
            }
            | {
                "ours minus": {
                    name: clustered_mean(
                        [a - b for a, b in zip(saved["greedy_tree"], each, strict=True)], seeds
                    ).as_dict()
                    for name, each in saved.items()
                    if name != "greedy_tree"
                }
            }
        )
    write(
        {"what": "predicted savings", "seeds": options.seeds, "tolerance": TOLERANCE, "sizes": rows},
        options.record,
    )


if __name__ == "__main__":
    main()
