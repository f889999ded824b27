"""What every planner saves of real pictures at the same risk, and what the judge finds in them; prints JSON.

    python -m experiments.planner.judged --rows runs/planner/judged.jsonl \\
        --record experiments/records/planner/judged.json
    python -m experiments.planner.judged --rows ... --windows 0 --record ...     # statistics only

The streams are those of `experiments.streams.popular`: captions of Scenes by Zipf's law (exponent 1), 32 wait at a
time. Each planner gets the vectors of the prompts themselves, the shipped calibration of Scenes, and the default
tolerance and risk of a run; nothing is tuned. So no prompt is hidden from the planner: what runs save, where devices
disclose nodes or concepts and share on public prompts, is in `experiments.planner.in_runs`. Shared steps run on the
mean of the text embeddings of a node's members; see `pictures.ways_of`.

At equal judged quality, and with an oracle, they are compared in `experiments.planner.equal.compare`.

A planner is not inferior if, of the differences to the pictures drawn alone, prompt by prompt, the lower end of the
95 % interval (bootstrap over objects) lies above -`MARGIN`. Intervals of steps, joules, seconds and bits are Student's
over streams. Joules and seconds are those of the built-in profiles, bits those of a packet of the embedded model.

--rows keeps each window of each stream, so an interrupted command can be repeated. Windows are drawn in turn from all
streams; the record takes as many as every stream has.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fedaigc
from experiments.planner.output import write
from experiments.planner.pictures import STEPS, Pictures, ways_of
from experiments.quality.sampling import one_thread
from experiments.streams.popular import WINDOW, stream, targets
from fedaigc import assets
from fedaigc.api.denoising import start
from fedaigc.api.radio import transmit
from fedaigc.collaboration.planner import Executor
from fedaigc.federation.server.sharing.planned import machines_of
from fedaigc.metrics.intervals import Estimate, clustered_mean
from fedaigc.metrics.judge import Verdict
from fedaigc.planning.check import check_plan
from fedaigc.planning.cost import plan_cost
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.registry import PLANNERS
from fedaigc.planning.setting import Link, Setting
from fedaigc.planning.tasks import Tasks
from fedaigc.rng import derived_seed
from fedaigc.semantics.denoiser.calibration import RISK, TOLERANCE, Calibration
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi
from fedaigc.semantics.denoiser.shipped import SCENES_CALIBRATION

LADDER = (1, 2, 3, 4, 5, 6, 8, 10)
MARGIN = 0.05
OURS = "greedy_tree"
NAMES = tuple(name for name in PLANNERS if name != "optimal")
COSTS = ("saved", "joules", "seconds", "kbit")


def setting_of(pictures: Pictures, risk: float = RISK) -> Setting:
    """Return curve, machines and link: a packet of the embedded model over a simulated link at 12 dB."""
    calibration = Calibration.read(assets.path(SCENES_CALIBRATION))
    calibration.check_fits(DenoiserSpace.of(pictures.plan).hash, pictures.plan)
    packet = start(pictures.pipe, pictures.plan).run("a cup on a table", until=3)
    _, sent = transmit(packet.pack(number_format="fixed8-gray"), snr_db=12.0, scheme="mcs-8")
    link = Link(sent.bits_on_air, sent.latency_s, sent.send_j + sent.receive_j)
    machines = replace(machines_of(Executor.EDGE), link=link)
    return Setting(DamageCurve.of_risk(calibration, TOLERANCE, LADDER), risk, machines)


def row_of(
    name: str, plan: Plan, tasks: Tasks, setting: Setting, seen: Sequence[Verdict], prompts: Sequence[str]
) -> dict[str, Any]:
    """Return hand-offs, costs a picture, and what the judge found."""
    cost, wanted, number = plan_cost(plan, tasks, setting), targets(), len(tasks)
    return {
        "planner": name,
        "K": plan.handoffs.tolist(),
        "saved": cost.saved,
        "joules": cost.joules / number,
        "seconds": cost.mean_seconds,
        "kbit": cost.bits / number / 1000,
        "object": [int(v.object == wanted[text][0]) for v, text in zip(seen, prompts, strict=True)],
        "place": [int(v.place == wanted[text][1]) for v, text in zip(seen, prompts, strict=True)],
    }


def draw_window(
    pictures: Pictures,
    vectors: dict[str, np.ndarray],
    setting: Setting,
    seed: int,
    window: int,
    known: dict[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return the rows of a window that are not known yet."""
    prompts = stream(seed)[window * WINDOW : (window + 1) * WINDOW]
    tasks = Tasks.of(np.array([vectors[text] for text in prompts], dtype=float))
    noises = [derived_seed(seed, "judged", window, row) % 2**32 for row in range(len(prompts))]
    rows = []
    wanted = [name for name in NAMES if name not in known]
    if wanted:
        plans = {name: PLANNERS[name]()(tasks, setting) for name in wanted}
        faults = {name: check_plan(plan, tasks, setting) for name, plan in plans.items()}
        if any(faults.values()):
            raise RuntimeError(f"stream {seed}, window {window}: {faults}")
        ways = {name: ways_of(plan, tasks, prompts, noises, STEPS) for name, plan in plans.items()}
        seen = pictures.verdicts(way for each in ways.values() for way in each)
        rows = [
            row_of(name, plan, tasks, setting, [seen[way] for way in ways[name]], prompts)
            for name, plan in plans.items()
        ]
    return [{"seed": seed, "window": window, **row} for row in rows]


def over_streams(values: Sequence[float]) -> dict[str, float]:
    """Return the mean over streams with Student's 95 % interval."""
    from scipy.stats import ttest_1samp

    array = np.array(values, dtype=float)
    if np.ptp(array) <= 1e-12 * np.abs(array).max():  # equal but for rounding
        return Estimate(float(array[0]), float(array[0]), float(array[0]), len(array)).as_dict()
    found = ttest_1samp(array, 0).confidence_interval(0.95)
    return Estimate(float(array.mean()), float(found.low), float(found.high), len(array)).as_dict()


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the comparison of the windows that every stream has, for each planner that all of them have."""
    at = {(row["seed"], row["window"], row["planner"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    place_of = targets()
    found: dict[str, Any] = {"seeds": len(seeds), "planners": {}}
    for name in NAMES:
        windows = 0
        while all((seed, windows, name) in at for seed in seeds):
            windows += 1
        if not windows:
            continue
        cells = [(seed, window) for seed in seeds for window in range(windows)]
        texts = {seed: stream(seed) for seed in seeds}
        objects = [
            place_of[text][0] for seed, w in cells for text in texts[seed][w * WINDOW : (w + 1) * WINDOW]
        ]

        def by_stream(planner: str, cost: str, windows: int = windows) -> list[float]:
            return [
                float(np.mean([at[seed, window, planner][cost] for window in range(windows)]))
                for seed in seeds
            ]

        def both(planner: str, cells: Sequence[tuple[int, int]] = cells) -> list[int]:
            return [
                a * b
                for cell in cells
                for a, b in zip(at[*cell, planner]["object"], at[*cell, planner]["place"], strict=True)
            ]

        kept, alone = both(name), both("none")
        lost = clustered_mean([a - b for a, b in zip(kept, alone, strict=True)], objects)
        found["planners"][name] = {
            "prompts": len(kept),
            **{cost: over_streams(by_stream(name, cost)) for cost in COSTS},
            "ours saves more by": over_streams(
                [a - b for a, b in zip(by_stream(OURS, "saved"), by_stream(name, "saved"), strict=True)]
            ),
            "both": sum(kept) / len(kept),
            "minus alone": lost.as_dict(),
            "not inferior": lost.low > -MARGIN,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="streams")
    parser.add_argument("--windows", type=int, default=3, help="windows of each stream")
    parser.add_argument("--rows", type=Path, required=True, help="file of windows, one JSON object a line")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    one_thread()
    rows: list[dict[str, Any]] = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    pictures = Pictures.open()
    setting = setting_of(pictures)
    texts = sorted({t for seed in range(options.seeds) for t in stream(seed)[: options.windows * WINDOW]})
    vectors = {}
    if texts:
        vectors = dict(zip(texts, phi(pictures.pipe, DenoiserSpace.of(pictures.plan), texts), strict=True))
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    for window in range(options.windows):
        for seed in range(options.seeds):
            known = {row["planner"]: row for row in rows if (row["seed"], row["window"]) == (seed, window)}
            new = draw_window(pictures, vectors, setting, seed, window, known)
            with options.rows.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            rows += new
    write(
        {
            "what": "costs of planners on real pictures at the same risk, and what the judge finds",
            "fedaigc": fedaigc.__version__,
            "base": pictures.plan.base_hash,
            "waiting": WINDOW,
            "ladder": LADDER,
            "tolerance": TOLERANCE,
            "risk": setting.tolerance,
            "bits of a packet": setting.machines.link.bits,
            "margin": MARGIN,
            **summary(rows),
            "rows": rows,
        },
        options.record,
    )


if __name__ == "__main__":
    main()
