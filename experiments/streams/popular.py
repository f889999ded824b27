"""Steps saved, and what is left of the pictures, when prompts of a popular stream share; prints JSON.

    python -m experiments.streams.popular --scratch ~/stream --record experiments/records/streams/popular.json
    python -m experiments.streams.popular --record ... --recompute     # statistics only

A stream has 400 captions of Scenes, drawn by Zipf's law (exponent 1) over all of them in an order of its own; each is
of another device, and 32 wait at a time. `policies` says who shares what. The judge looks for object and place
in every picture. A policy is not inferior if, of the differences to the pictures drawn alone, prompt by prompt, the
lower end of the 95 % interval (bootstrap over objects) lies above -.02.

The tolerance is .5: of pictures with more damage the judge misses object or place in most (docs/sharing.md). The risk
is chosen on a stream of its own, for each conditioning: the largest of `RISKS` at which it loses at most one point.
Atlas and calibration are built from all captions; their parts are kept in --scratch, and each policy of each stream in
the record, so an interrupted command can be repeated.

--oracle adds to a record what the judge would choose: in the groups of the mean each prompt takes the last hand-off at
which the judge misses nothing that it found in the picture drawn alone. No device can know that; it bounds what any
choice of hand-offs in these groups could save. Another machine rounds otherwise, so the record says of how many prompts
the devices' own hand-offs are others there than those in the record.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

import fedaigc
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from experiments.streams.drawing import Drawn, Studio, draw_groups
from experiments.streams.policies import LADDER, Groups, Policies
from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, RELATIONS
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.rng import numpy_rng
from fedaigc.storage.atomic_file import json_bytes, write_file

STREAM, WINDOW = 400, 32
TUNING_SEED = 100
TOLERANCE, RISKS = 0.5, (0.15, 0.2, 0.25, 0.3, 0.4)
MARGIN, ALLOWED = 0.02, 0.01
ORACLE = "oracle, in the groups of the mean"
TUNED = ("ladder, public caption", "ladder, mean", "equality test, ladder, mean")


def main() -> None:
    """Measure, and print the record's summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="streams")
    parser.add_argument(
        "--oracle", action="store_true", help="add an oracle, which knows the judge, to a record"
    )
    parser.add_argument("--scratch", type=Path, help="folder for atlas and calibration")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--recompute", action="store_true", help="statistics only")
    options = parser.parse_args()
    record = json.loads(options.record.read_text()) if options.record.is_file() else None
    if not options.recompute:
        if options.scratch is None:
            parser.error("--scratch is missing")
        if not options.oracle:
            record = measure(options, record)
        elif record is not None:
            add_oracle(options, record)
    if record is None:
        parser.error(f"no record {options.record}")
    summarise(record)
    write_record(options.record, record)
    print(json.dumps({name: record[name] for name in ("risk", "tuning summary", "summary")}, indent=1))


def captions() -> list[str]:
    """Return all captions of Scenes, without style."""
    return sorted(f"{o.phrase} {r} {p.phrase}" for o in OBJECT_NOUNS for r in RELATIONS for p in PLACE_NOUNS)


def targets() -> dict[str, tuple[str, str]]:
    """Return object and place of each caption, as the judge names them."""
    return {
        f"{o.phrase} {r} {p.phrase}": (o.word, p.word)
        for o in OBJECT_NOUNS
        for r in RELATIONS
        for p in PLACE_NOUNS
    }


def stream(seed: int) -> list[str]:
    """Return the prompts of a stream: Zipf's law over all captions, in an order that the seed shuffles."""
    random = numpy_rng(seed, "popular stream")
    texts = captions()
    order = random.permutation(len(texts))
    weights = 1 / (1 + order)
    return [texts[i] for i in random.choice(len(texts), STREAM, p=weights / weights.sum())]


def measure(options: argparse.Namespace, record: dict[str, Any] | None) -> dict[str, Any]:
    """Run what the record does not have yet; it is written after each policy of each stream."""
    one_thread()
    studio = Studio.open(captions(), targets(), options.scratch)
    if record is None or record["calibration"] != studio.calibration_digest:
        record = {
            "what": "steps saved, and object and place found, for a popular stream of captions",
            "fedaigc": fedaigc.__version__,
            "torch": torch.__version__,
            "base": studio.plan.base_hash,
            "N": studio.plan.num_steps,
            "guidance": studio.plan.guidance_scale,
            "captions": len(captions()),
            "atlas": studio.atlas.hash,
            "calibration": studio.calibration_digest,
            "tuning": {},
            "streams": {},
        }
    with Progress(console=PROGRESS_CONSOLE) as progress:
        bar = progress.add_task("streams", total=options.seeds + 1)
        tuning = record["tuning"]
        for risk in RISKS:
            into = tuning.setdefault(str(risk), {})
            names: tuple[str, ...] = ("alone", *TUNED) if risk == RISKS[0] else TUNED
            run(studio, TUNING_SEED, risk, names, into, lambda: write_record(options.record, record))
        progress.advance(bar)
        record["risk"] = {name: chosen(tuning, name) for name in TUNED}
        for seed in range(options.seeds):
            into = record["streams"].setdefault(str(seed), {})
            for name in Policies(studio, TOLERANCE, 0.0).named:
                risk = record["risk"].get(name if name in TUNED else "ladder, mean")
                run(studio, seed, risk, (name,), into, lambda: write_record(options.record, record))
            progress.advance(bar)
    return record


def run(
    studio: Studio,
    seed: int,
    risk: float,
    names: Sequence[str],
    into: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """Draw a stream under each policy that `into` does not have."""
    texts, policies = stream(seed), Policies(studio, TOLERANCE, risk)
    for name in names:
        if name in into:
            continue
        found: list[Drawn] = []
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            found += draw_groups(studio, window, policies.named[name](window), (seed, start))
        into[name] = columns(found)
        save()


def add_oracle(options: argparse.Namespace, record: dict[str, Any]) -> None:
    """Draw what the judge would choose for the streams of a record that do not have it yet."""
    one_thread()
    studio = Studio.open(captions(), targets(), options.scratch)
    policies = Policies(studio, TOLERANCE, record["risk"]["ladder, mean"])
    told = record.setdefault(
        "oracle",
        {"atlas": studio.atlas.hash, "calibration": studio.calibration_digest, "other hand-offs": {}},
    )
    for seed in range(options.seeds):
        into = record["streams"][str(seed)]
        if ORACLE in into:
            continue
        texts = stream(seed)
        found: list[Drawn] = []
        taken: list[int] = []
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            groups = policies.named["ladder, mean"](window)
            handoffs = {i: k for group in groups for i, k in group.handoffs.items()}
            taken += [handoffs[i] for i in range(len(window))]
            alone = [drawn_alone(into["alone"], start + i) for i in range(len(window))]
            found += told_by_judge(studio, window, groups, (seed, start), alone)
        into[ORACLE] = columns(found)
        recorded = into["ladder, mean"]["K"]
        told["other hand-offs"][str(seed)] = sum(a != b for a, b in zip(taken, recorded, strict=True))
        write_record(options.record, record)


def columns(drawn: Sequence[Drawn]) -> dict[str, list[int]]:
    """Return the values of prompts by their names."""
    rows = [each.as_row() for each in drawn]
    return {name: [row[name] for row in rows] for name in rows[0]}


def drawn_alone(rows: dict[str, list[int]], row: int) -> Drawn:
    """Return a prompt of a stream as it was drawn alone."""
    return Drawn(**{field.name: rows[field.name][row] for field in fields(Drawn)})


def told_by_judge(
    studio: Studio, window: Sequence[str], groups: Groups, seed: tuple[int, int], alone: Sequence[Drawn]
) -> list[Drawn]:
    """Return the prompts, each at the last hand-off at which nothing is lost that it has alone.

    Args:
        studio: Model and judge.
        window: The prompts.
        groups: Their groups, of which hand-offs are ignored.
        seed: Of the noise.
        alone: Each prompt drawn alone.
    """
    found: dict[int, Drawn] = {}
    # from the last hand-off on, so that a prompt is drawn until the judge is content
    for k in reversed(LADDER):
        asked = [
            replace(group, handoffs=dict.fromkeys([i for i in group.members if i not in found], k))
            for group in groups
            if len(group.members) > 1 and not found.keys() >= set(group.members)
        ]
        if not asked:
            break
        rows = draw_groups(studio, window, asked, seed)
        open_members = sorted(i for group in asked for i in group.handoffs)
        for i, row in zip(open_members, rows, strict=True):
            if row.object * row.place >= alone[i].object * alone[i].place:
                found[i] = row
    taken = [found.get(i, alone[i]) for i in range(len(window))]
    for group in groups:
        first, most = min(group.members), max(taken[i].K for i in group.members)
        for i in group.members:
            evaluations = studio.plan.num_steps - taken[i].K + (most if i == first else 0)
            taken[i] = replace(taken[i], evaluations=evaluations)
    return taken


def chosen(tuning: dict[str, Any], name: str) -> float:
    """Return the largest risk at which a policy loses at most `ALLOWED`; else the smallest."""
    alone = tuning[str(RISKS[0])]["alone"]["both"]
    fitting = [risk for risk in RISKS if difference(tuning[str(risk)][name]["both"], alone) >= -ALLOWED]
    return max(fitting, default=RISKS[0])


def difference(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the mean difference, prompt by prompt."""
    return sum(a - b for a, b in zip(one, other, strict=True)) / len(one)


def summarise(record: dict[str, Any]) -> None:
    """Compute steps saved and differences to the pictures drawn alone."""
    texts = stream(TUNING_SEED)
    alone = record["tuning"][str(RISKS[0])]["alone"]
    record["tuning summary"] = {
        f"{name} at {risk}": compared([(texts, found[name], alone)], record["N"])
        for risk, found in record["tuning"].items()
        for name in found
        if name in TUNED
    }
    streams = record["streams"]
    names = list(next(iter(streams.values()), {}))
    record["summary"] = {
        name: compared(
            [(stream(int(seed)), found[name], found["alone"]) for seed, found in streams.items()], record["N"]
        )
        for name in names
        if all(name in found for found in streams.values())
    }


def compared(parts: Sequence[tuple[Sequence[str], Any, Any]], steps: int) -> dict[str, Any]:
    """Return what a policy saves and loses over some streams, each with the same stream drawn alone."""
    place_of = targets()
    objects = [place_of[text][0] for texts, _, _ in parts for text in texts]
    saved = [1 - sum(found["evaluations"]) / (steps * len(texts)) for texts, found, _ in parts]
    told: dict[str, Any] = {
        "steps saved": {
            "mean": round(sum(saved) / len(saved), 4),
            "by stream": [round(value, 4) for value in saved],
        },
        "share in groups": round(
            sum(sum(k > 0 for k in found["K"]) for _, found, _ in parts) / len(objects), 4
        ),
    }
    for what in ("both", "object", "place"):
        differences = [
            a - b for _, found, alone in parts for a, b in zip(found[what], alone[what], strict=True)
        ]
        told[what] = {
            "kept": round(sum(sum(found[what]) for _, found, _ in parts) / len(objects), 4),
            "minus alone": clustered_mean(differences, objects).as_dict(),
        }
    told["not inferior"] = told["both"]["minus alone"]["low"] > -MARGIN
    return told


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, one key a line, and each list of numbers in one line."""
    text = json_bytes(record).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, re.sub(r"\[[^\[\]{}\"]*\]", lambda found: "".join(found[0].split()), text).encode())


if __name__ == "__main__":
    main()
