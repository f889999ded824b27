"""Records: the values of every picture, and statistics that can be recomputed from them without the model.

A row holds its values under "each", one per picture, in the order of its prompt pairs. They give shares and
means with 95 % intervals, and the comparisons of rows. Pairs share objects (100 pairs have 22 targets), and one
object is harder than another, so pictures with the same target object are one cluster.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fedaigc
from experiments.paper.pairs import Pair
from fedaigc.metrics.intervals import clustered_mean, clustered_share, paired_difference

Record = dict[str, Any]
Row = dict[str, Any]
# in a row: the score of each picture against the target's own prompt, where CLIP was asked
CLIP_SCORE = "CLIP score"
INTERVALS = "95 %, bootstrap over target objects; where all or none: Wilson"
# the keys that name the prompt pairs of a row, where a record has several sets
_SET_KEYS = ("in common", "pairs")


@dataclass(frozen=True)
class Comparison:
    """One row minus another, by a value of "each": keys that identify each row, and the value's path.

    Rows of the same prompt pairs are compared picture by picture. Rows of different pairs are compared object by
    object, by the mean of each target object that both have; without such an object there is no comparison.
    """

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    value: tuple[str, ...]


def columns(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Return pairs in the form of a record, as one list per field."""
    names = ("object", "place", "own", "other", "group")
    return {name: [getattr(pair, name) for pair in pairs] for name in names}


def new_record(
    what: str,
    options: argparse.Namespace,
    base: str,
    guidance: float,
    pairs: Mapping[str, Mapping[str, Sequence[str]]],
    rows: Sequence[Row],
) -> Record:
    """Return a record of the measurement with the settings that it was made with; see `summarise`."""
    return {
        "what": what,
        "fedaigc": fedaigc.__version__,
        "torch": torch.__version__,
        "model": getattr(options, "model", "embedded"),
        "base": base,
        "pairs": options.pairs,
        "seed": options.seed,
        "guidance_scale": guidance,
        "minimum of public prompts": options.min_public_prompts,
        "rows": list(rows),
        "prompt pairs": dict(pairs),
    }


def summarise(record: Record, comparisons: Sequence[Comparison]) -> None:
    """Compute estimates and comparisons from the values of every picture, in place.

    A row without such values keeps its estimates and is in no comparison.
    """
    if all("each" in row for row in record["rows"]):
        record["intervals"] = INTERVALS
    for row in record["rows"]:
        if "each" in row:
            each = row.pop("each")
            row |= estimates(each, _pairs(record, row)["object"])
            row["each"] = each
    # where CLIP scored the pictures, it compares the rows that the judge would
    judged = [one for one in comparisons if one.value == ("judge", "object")]
    by_clip = [Comparison(one.first, one.second, (CLIP_SCORE,)) for one in judged]
    found = [_compared(record, one) for one in (*comparisons, *by_clip)]
    record["comparisons"] = [one for one in found if one is not None]


def estimates(each: Mapping[str, Any], objects: Sequence[str]) -> dict[str, Any]:
    """Return shares of outcomes, which are integers, and means of floats, in the same nesting as `each`."""
    found: dict[str, Any] = {}
    for name, values in each.items():
        if isinstance(values, Mapping):
            found[name] = estimates(values, objects)
        elif all(isinstance(value, int) for value in values):
            found[name] = clustered_share([bool(value) for value in values], objects).as_dict()
        else:
            found[name] = clustered_mean(values, objects).as_dict()
    return found


def row_with(rows: Sequence[Row], keys: Mapping[str, Any]) -> Row:
    """Return the only row with these values.

    Raises:
        ValueError: If no row or several rows have them.
    """
    found = [row for row in rows if all(row.get(key) == value for key, value in keys.items())]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows have {dict(keys)}: expected 1")
    return found[0]


def report(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Record],
    comparisons: Sequence[Comparison] = (),
    draw: Callable[[Sequence[Row], Path], None] | None = None,
    derive: Callable[[Record], None] | None = None,
) -> None:
    """Measure, or read the record with --recompute; then summarise, print, write and draw as requested.

    Args:
        options: The options of the command.
        measure: Makes the measurement and returns its record.
        comparisons: The rows to compare.
        draw: Plots the curves of all rows into a folder.
        derive: Adds entries that follow from the rest of the record.
    """
    if options.recompute:
        record = stored(options.record)
    else:
        record = measure(options)
        # save the expensive part first, in case the rest fails
        _write(record, options.record)
    summarise(record, comparisons)
    if derive is not None:
        derive(record)
    # long lists last
    record |= {key: record.pop(key) for key in ("rows", "prompt pairs") if key in record}
    print(dumps(record))
    _write(record, options.record)
    if options.images is not None and draw is not None:
        draw(record["rows"], options.images)


def stored(path: Path | None) -> Record:
    """Return the record at `path`.

    Raises:
        SystemExit: If there is none, with what to do.
    """
    if path is None:
        raise SystemExit("--recompute reads the record given by --record: give both options")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SystemExit(
            f"{path} cannot be read ({error.strerror}): run without --recompute first"
        ) from error
    except ValueError as error:
        raise SystemExit(f"{path} is not valid JSON ({error}): run without --recompute") from error
    without = sum("each" not in row for row in record["rows"])
    if without:
        print(
            f"{path}: {without} of {len(record['rows'])} rows have no values of single pictures, so their "
            "estimates are unchanged and not compared; run without --recompute to measure them again",
            file=sys.stderr,
        )
    return record


def dumps(record: Record) -> str:
    """Return JSON with one line for each field, and lists of plain values on one line."""
    text = json.dumps(record, indent=1)
    # JSON strings contain no line breaks, so a list that spans lines is never inside one
    flat = re.compile(r"\[\n\s*([^\[\]{}]*?)\n\s*\]")
    return flat.sub(lambda found: "[" + re.sub(r"\n\s*", " ", found[1]) + "]", text)


def _write(record: Record, path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(record) + "\n", encoding="utf-8")


def _pairs(record: Record, row: Row) -> Mapping[str, Sequence[str]]:
    sets = record["prompt pairs"]
    name = next((row[key] for key in _SET_KEYS if row.get(key) in sets), None)
    return sets[name] if name is not None else next(iter(sets.values()))


def _compared(record: Record, one: Comparison) -> dict[str, Any] | None:
    first, second = (row_with(record["rows"], keys) for keys in (one.first, one.second))
    if "each" not in first or "each" not in second:
        return None
    values, objects = [], []
    for row in (first, second):
        found = row["each"]
        for key in one.value:
            # a model whose pictures the judge cannot read has no such value
            if key not in found:
                return None
            found = found[key]
        values.append(found)
        objects.append(_pairs(record, row)["object"])
    by = "pictures"
    if _pairs(record, first) is not _pairs(record, second):
        by = "means of objects"
        values, names = _object_means(values, objects)
        if not names:
            return None
        objects = [names, names]
    difference = paired_difference(values[0], values[1], objects[0])
    return {
        "of": dict(one.first),
        "minus": dict(one.second),
        "value": ", ".join(one.value),
        "by": by,
        "difference": difference.as_dict(),
    }


def _object_means(
    values: Sequence[Sequence[float]], objects: Sequence[Sequence[str]]
) -> tuple[list[list[float]], list[str]]:
    """Return the mean of each common object for both rows, and these objects."""
    means = []
    for found, names in zip(values, objects, strict=True):
        grouped = defaultdict(list)
        for value, name in zip(found, names, strict=True):
            grouped[name].append(value)
        means.append({name: float(np.mean(group)) for name, group in grouped.items()})
    common = sorted(means[0].keys() & means[1].keys())
    return [[one[name] for name in common] for one in means], common
