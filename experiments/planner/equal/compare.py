"""What every planner saves of real pictures at equal judged quality; prints JSON.

    python -m experiments.planner.equal.compare --rows runs/planner/equal.jsonl \\
        --record experiments/records/planner/equal.json

Streams, vectors, calibration and the pictures of plans are those of `experiments.planner.judged`. There every planner
has the same risk, and so another quality. Here each has a variant of its own (`variants`): the one that saves most of
those that lose at most `ALLOWED` on streams which are used for nothing else, from seed `TUNING` on. What a variant
loses is the share of pictures in which the judge finds object and place, below that of the same prompts and noises
drawn alone; within a family, isotonic regression makes it grow with the family's number. The chosen variants then draw
fresh streams, from seed `TEST` on, and nothing is chosen there.

The oracle knows the judge: in the trees of `greedy_tree` at a risk of .5, each member leaves at its
hand-off there or at the last of two earlier ones at which nothing is lost that it has alone.

A planner is not inferior if, of the differences to the pictures drawn alone, prompt by prompt, the lower end of the
95 % interval (bootstrap over objects) lies above -`MARGIN`. Intervals of steps, joules, seconds and bits are Student's
over streams.

--rows keeps each window, so an interrupted command can be repeated.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fedaigc
from experiments.planner.equal.draw import ALONE, ORACLE, Row, Studio
from experiments.planner.equal.variants import OURS, Family, Variant, families
from experiments.planner.judged import COSTS, LADDER, MARGIN, over_streams
from experiments.planner.output import write
from experiments.quality.sampling import one_thread
from experiments.streams.popular import WINDOW, stream, targets
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.semantics.denoiser.calibration import TOLERANCE

TUNING, TEST = 200, 300
ALLOWED = 0.01


def both(rows: Sequence[Row]) -> list[int]:
    """Return for each picture whether the judge found object and place."""
    return [a * b for row in rows for a, b in zip(row["object"], row["place"], strict=True)]


def tuned(rows: Sequence[Row], tried: Sequence[Family]) -> list[dict[str, Any]]:
    """Return what each variant of a planner saves and loses, with the loss as isotonic regression has it.

    Args:
        rows: Rows of the tuning streams, those drawn alone among them.
        tried: The families of the planner.
    """
    from scipy.optimize import isotonic_regression

    of: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["seed"], row["window"])):
        of.setdefault(row["variant"], []).append(row)
    alone = float(np.mean(both(of[ALONE.key])))
    found = []
    for family in tried:
        lost = [alone - float(np.mean(both(of[each.key]))) for each in family]
        for each, loss, fitted in zip(family, lost, isotonic_regression(lost).x, strict=True):
            saved = float(np.mean([row["saved"] for row in of[each.key]]))
            found.append({"variant": each.key, "saved": saved, "loss": loss, "fitted loss": float(fitted)})
    return found


def chosen(tried: Sequence[dict[str, Any]]) -> str:
    """Return the variant that saves most of those that lose at most `ALLOWED`; if none, the one that loses least."""
    fitting = [each for each in tried if each["fitted loss"] <= ALLOWED + 1e-9]
    best = (
        max(fitting, key=lambda each: each["saved"])
        if fitting
        else min(tried, key=lambda each: each["fitted loss"])
    )
    return str(best["variant"])


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return costs of each planner and what its pictures lost, over test streams that have the same windows."""
    of: dict[str, dict[tuple[int, int], Row]] = {}
    for row in rows:
        of.setdefault(row["planner"], {})[row["seed"], row["window"]] = row
    cells = sorted(of["none"])
    if any(sorted(each) != cells for each in of.values()):
        raise ValueError("planners were measured on different windows")
    seeds = sorted({seed for seed, _ in cells})
    wanted = targets()
    objects = [wanted[text][0] for seed, w in cells for text in stream(seed)[w * WINDOW : (w + 1) * WINDOW]]

    def by_stream(name: str, cost: str) -> list[float]:
        return [float(np.mean([of[name][cell][cost] for cell in cells if cell[0] == seed])) for seed in seeds]

    alone = both([of["none"][cell] for cell in cells])
    found: dict[str, Any] = {}
    for name, mine in of.items():
        kept = both([mine[cell] for cell in cells])
        lost = clustered_mean([a - b for a, b in zip(kept, alone, strict=True)], objects)
        ours, theirs = by_stream(OURS, "saved"), by_stream(name, "saved")
        found[name] = {
            "variant": mine[cells[0]]["variant"],
            "prompts": len(kept),
            **{cost: over_streams(by_stream(name, cost)) for cost in COSTS},
            "ours saves more by": over_streams([a - b for a, b in zip(ours, theirs, strict=True)]),
            "both": sum(kept) / len(kept),
            "minus alone": lost.as_dict(),
            "not inferior": lost.low > -MARGIN,
        }
    return {"seeds": len(seeds), "planners": found}


def measure(path: Path, studio: Studio, tuning: int, seeds: int, windows: int) -> tuple[list[Row], list[Row]]:
    """Return the rows of tuning and of test streams; those that the file does not have are drawn and added to it."""
    rows: list[Row] = []
    if path.exists():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.parent.mkdir(parents=True, exist_ok=True)

    def draw(first: int, number: int, variants: Sequence[Variant], *, oracle: bool) -> list[Row]:
        for window in range(windows):
            for seed in range(first, first + number):
                known = {row["variant"] for row in rows if (row["seed"], row["window"]) == (seed, window)}
                wanted = [each for each in variants if each.key not in known]
                ask = oracle and ORACLE not in known
                if not (wanted or ask):
                    continue
                new = studio.draw(seed, window, wanted, oracle=ask)
                with path.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in new)
                rows.extend(new)
        keys = {each.key for each in variants} | ({ORACLE} if oracle else set())
        return [row for row in rows if first <= row["seed"] < first + number and row["variant"] in keys]

    by_key = {each.key: each for tried in families().values() for family in tried for each in family}
    of_tuning = draw(TUNING, tuning, (ALONE, *by_key.values()), oracle=False)
    best = [by_key[chosen(tuned(of_tuning, tried))] for tried in families().values()]
    return of_tuning, draw(TEST, seeds, (ALONE, *best), oracle=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tuning", type=int, default=6, help="streams on which variants are chosen")
    parser.add_argument("--seeds", type=int, default=7, help="streams that are measured")
    parser.add_argument("--windows", type=int, default=2, help="windows of each stream")
    parser.add_argument("--rows", type=Path, required=True, help="file of windows, one JSON object a line")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    one_thread()
    seeds = (*range(TUNING, TUNING + options.tuning), *range(TEST, TEST + options.seeds))
    studio = Studio.open(seeds, options.windows)
    of_tuning, of_test = measure(options.rows, studio, options.tuning, options.seeds, options.windows)
    write(
        {
            "what": "costs of planners on real pictures, each with a setting that loses as much on other streams",
            "fedaigc": fedaigc.__version__,
            "base": studio.pictures.plan.base_hash,
            "waiting": WINDOW,
            "ladder": LADDER,
            "tolerance": TOLERANCE,
            "allowed": ALLOWED,
            "margin": MARGIN,
            "tuning": {
                "streams": options.tuning,
                "prompts": options.tuning * options.windows * WINDOW,
                "tried": {name: tuned(of_tuning, tried) for name, tried in families().items()},
            },
            **summary(of_test),
            "rows": of_test,
        },
        options.record,
    )


if __name__ == "__main__":
    main()
