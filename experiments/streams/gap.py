"""Where the steps go that an oracle saves and devices do not: by groups and by hand-offs; prints JSON.

    python -m experiments.streams.gap --scratch ~/stream --record experiments/records/streams/gap.json
    python -m experiments.streams.gap --record ... --recompute     # statistics only

Streams as those of `popular`, of other seeds; devices decide by the calibration that ships for captions of Scenes.
Nothing is tuned. Groups are formed in four ways:

- nodes: at nodes of the atlas, from what devices disclose;
- joined: devices have tested which prompts are equal, and devices with equal prompts are one member of such a group.
  After its hand-off they share the steps on their own prompt, all but the last;
- informed: by a server that knows the vector of every prompt; and the same, joined.

Each member of the first two is drawn at every hand-off of a ladder, from the noise of its group (`bank`), so that any
choice of hand-offs can be judged on the same pictures:

- by risk: what a device does, by the upper end of the risk over its distance;
- by expected risk: the same without the margin for the few pairs of a calibration;
- by its own damage: the last hand-off at which the picture changes by no more than the tolerance. A device that drew
  its picture alone would know;
- by the judge: the last one at which the judge misses nothing that it finds in the picture drawn alone.

A picture is compared with the one drawn alone from the same noise: the mean difference is that to a noise of one's own,
without the luck of another noise. Of the informed groups only the distances are recorded. Everything is kept in the
record, one grouping of one stream after another, so an interrupted command can be repeated; --also adds streams of
another record.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import fedaigc
from experiments.quality.sampling import one_thread
from experiments.streams.bank import Member, bank
from experiments.streams.drawing import STEPS, Studio
from experiments.streams.informed import informed
from experiments.streams.policies import Formed, Policies
from experiments.streams.popular import (
    MARGIN,
    STREAM,
    TOLERANCE,
    WINDOW,
    captions,
    stream,
    targets,
    write_record,
)
from fedaigc import assets
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.semantics.denoiser.calibration import RISK, Calibration
from fedaigc.semantics.denoiser.shipped import SCENES_CALIBRATION

LADDER, SHORT = (1, 2, 3, 4, 6, 8, 10), (1, 2, 3, 4)
SEEDS = (200, 201, 202)
RISKS = (0.15, 0.2, 0.25, 0.3)
GROUPINGS = ("joined", "nodes", "informed, joined", "informed")
DRAWN = ("joined", "nodes")


def main() -> None:
    """Measure, and print the record's summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="streams")
    parser.add_argument("--groupings", nargs="+", default=GROUPINGS, choices=GROUPINGS)
    parser.add_argument("--scratch", type=Path, help="folder for the atlas")
    parser.add_argument("--processes", type=int, default=1, help="that draw, of one thread each")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="records whose streams are added")
    parser.add_argument("--recompute", action="store_true", help="statistics only")
    options = parser.parse_args()
    record = json.loads(options.record.read_text()) if options.record.is_file() else None
    if not options.recompute:
        if options.scratch is None:
            parser.error("--scratch is missing")
        record = measure(options, record)
    if record is None:
        parser.error(f"no record {options.record}")
    for path in options.also:
        other = json.loads(path.read_text())
        if other["atlas"] != record["atlas"]:
            parser.error(f"{path} is of another atlas")
        for seed, found in other["streams"].items():
            record["streams"].setdefault(seed, {}).update(found)
    summarise(record)
    write_record(options.record, record)
    print(json.dumps(record["summary"], indent=1))


def measure(options: argparse.Namespace, record: dict[str, Any] | None) -> dict[str, Any]:
    """Draw what the record does not have yet; it is written after each grouping of each stream."""
    studio = _studio(options.scratch)
    if record is None or record["atlas"] != studio.atlas.hash:
        record = {
            "what": "hand-offs of the groups of popular streams",
            "fedaigc": fedaigc.__version__,
            "torch": torch.__version__,
            "base": studio.plan.base_hash,
            "N": STEPS,
            "atlas": studio.atlas.hash,
            "streams": {},
        }
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as workers:
        for name in options.groupings:
            for seed in options.seeds:
                into = record["streams"].setdefault(str(seed), {})
                if name in into:
                    continue
                starts = range(0, STREAM, WINDOW)
                asked = [workers.submit(_window, options.scratch, name, seed, start) for start in starts]
                found = [
                    {"window": start, **asdict(each)}
                    for start, future in zip(starts, asked, strict=True)
                    for each in future.result()
                ]
                into[name] = {key: [row[key] for row in found] for key in found[0]}
                write_record(options.record, record)
    return record


@cache
def _studio(scratch: Path) -> Studio:
    """Return model, judge and atlas, once in each process."""
    one_thread()
    return Studio.open(captions(), targets(), scratch, shipped_calibration())


def _window(scratch: Path, name: str, seed: int, start: int) -> list[Member]:
    """Return the members of the groups of a window, with their pictures if they are drawn."""
    studio = _studio(scratch)
    window = stream(seed)[start : start + WINDOW]
    joined = name.endswith("joined")
    members = list(dict.fromkeys(window)) if joined else window
    copies = [window.count(text) if joined else 1 for text in members]
    ladder = LADDER if name in DRAWN else ()
    return bank(studio, members, copies, formed(studio, name, members), ladder, (seed, start))


def shipped_calibration() -> Calibration:
    """Return the calibration that ships for captions of Scenes."""
    return Calibration.read(assets.path(SCENES_CALIBRATION))


def formed(studio: Studio, name: str, window: Sequence[str]) -> list[Formed]:
    """Return the groups of a window by the name of the way to form them."""
    policies = Policies(studio, TOLERANCE, RISK)
    if name in DRAWN:
        return policies.formed(window, LADDER, mean=True)

    @cache
    def at(apart: float) -> int:
        return policies.taken(apart, LADDER)

    return informed(studio, window, lambda apart: [at(round(float(each), 3)) for each in apart])


def rules(calibration: Calibration) -> dict[str, Callable[[Member], int]]:
    """Return the choices of hand-offs that are compared, by their names."""

    def by_risk(risk: float, ladder: Sequence[int] = LADDER) -> Callable[[Member], int]:
        return lambda each: calibration.last_handoff(each.apart, TOLERANCE, ladder, risk=risk)

    def by_expected(risk: float) -> Callable[[Member], int]:
        def fits(each: Member, k: int) -> bool:
            return calibration.risk(k, each.apart, TOLERANCE)[0] <= risk

        return lambda each: max(
            (k for k in LADDER if each.apart <= calibration.knots[-1] and fits(each, k)), default=0
        )

    def last(fits: Callable[[Member, int], bool]) -> Callable[[Member], int]:
        return lambda each: max((k for i, k in enumerate(LADDER) if fits(each, i)), default=0)

    return {
        **{f"risk {risk:g}": by_risk(risk) for risk in RISKS},
        **{f"risk {risk:g}, to step {SHORT[-1]}": by_risk(risk, SHORT) for risk in RISKS},
        "expected risk 0.1": by_expected(0.1),
        "expected risk 0.2": by_expected(0.2),
        "own damage": last(lambda each, i: each.damage[i] <= TOLERANCE),
        "judge": last(lambda each, i: each.both[i] >= each.alone),
    }


def members_of(columns: dict[str, list[Any]]) -> list[Member]:
    """Return the members that a record holds; groups of different windows have different numbers."""
    number: dict[tuple[int, int], int] = {}
    found = []
    for row in range(len(columns["window"])):
        values = {field.name: columns[field.name][row] for field in fields(Member)}
        group = number.setdefault((columns["window"][row], values["group"]), len(number))
        values |= {"group": group, "both": tuple(values["both"]), "damage": tuple(values["damage"])}
        found.append(Member(**values))
    return found


def chosen(members: Sequence[Member], takes: Callable[[Member], int]) -> list[int]:
    """Return the hand-off of each member; one that would share with nobody is alone."""
    steps = [takes(each) for each in members]
    sharing: dict[int, int] = {}
    for each, k in zip(members, steps, strict=True):
        sharing[each.group] = sharing.get(each.group, 0) + (k > 0)
    return [k if sharing[each.group] > 1 else 0 for each, k in zip(members, steps, strict=True)]


def saved_steps(members: Sequence[Member], steps: Sequence[int]) -> int:
    """Return the denoising steps that the groups save."""
    most: dict[int, int] = {}
    for each, k in zip(members, steps, strict=True):
        most[each.group] = max(most.get(each.group, 0), k)
    return sum(steps) - sum(most.values())


def saved_by_equal(texts: Sequence[str]) -> int:
    """Return the steps that equal prompts of a window save, if they share all but the last."""
    windows = [texts[start : start + WINDOW] for start in range(0, len(texts), WINDOW)]
    return sum((STEPS - 1) * (len(window) - len(set(window))) for window in windows)


def differences(
    texts: Sequence[str], members: Sequence[Member], steps: Sequence[int], ladder: Sequence[int] = LADDER
) -> tuple[list[int], list[str]]:
    """Return, for each prompt of a stream, found minus found alone, and its object; 0 for those that draw alone."""
    place_of = targets()
    left: dict[str, int] = {}
    for text in texts:
        left[place_of[text][0]] = left.get(place_of[text][0], 0) + 1
    values: list[int] = []
    objects: list[str] = []
    for each, k in zip(members, steps, strict=True):
        values += [each.both[ladder.index(k)] - each.alone if k else 0] * each.copies
        objects += [each.object] * each.copies
        left[each.object] -= each.copies
    for thing, count in left.items():
        values += [0] * count
        objects += [thing] * count
    return values, objects


def summarise(record: dict[str, Any]) -> None:
    """Compute what each choice of hand-offs saves and loses in the groups of each kind."""
    named, record["summary"] = rules(shipped_calibration()), {}
    equal = [round(saved_by_equal(stream(int(seed))) / (STEPS * STREAM), 4) for seed in record["streams"]]
    record["equal prompts"] = {"steps saved": round(sum(equal) / len(equal), 4), "by stream": equal}
    streams = {int(seed): found for seed, found in record["streams"].items()}
    for name in GROUPINGS:
        drawn = {seed: members_of(found[name]) for seed, found in sorted(streams.items()) if name in found}
        for rule, takes in named.items():
            if not drawn or (name not in DRAWN and not rule.startswith("risk")):
                continue
            saved: list[float] = []
            values: list[int] = []
            objects: list[str] = []
            for seed, members in drawn.items():
                steps = chosen(members, takes)
                total = saved_steps(members, steps)
                if name.endswith("joined"):
                    total += saved_by_equal(stream(seed))
                saved.append(round(total / (STEPS * STREAM), 4))
                if name in DRAWN:
                    more, of = differences(stream(seed), members, steps)
                    values, objects = values + more, objects + of
            told: dict[str, Any] = {
                "streams": list(drawn),
                "steps saved": {"mean": round(sum(saved) / len(saved), 4), "by stream": saved},
            }
            if values:
                minus = clustered_mean(values, objects).as_dict()
                told |= {"minus alone": minus, "not inferior": minus["low"] > -MARGIN}
            record["summary"][f"{name}, {rule}"] = told


if __name__ == "__main__":
    main()
