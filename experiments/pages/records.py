"""The records that figures come from, and figures that are a value of one record."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from experiments.pages.registry import claim, figure
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "experiments" / "records"


@cache
def record(name: str) -> Any:
    """Read a record.

    Args:
        name: Path below experiments/records without .json, or path from the root with .json.

    Raises:
        UserError: If there is no such record.
    """
    path = ROOT / name if name.endswith(".json") else RECORDS / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"there is no record {path.relative_to(ROOT)}: correct the name, or run the experiment that writes it"
        ) from None
    except ValueError as error:
        raise UserError(f"{path.relative_to(ROOT)} is not valid JSON: {error}") from None


def estimate(value: dict[str, Any]) -> Estimate:
    """Return a mean or a rate with its interval from its form in a record."""
    n = int(value.get("n", value.get("trials", 0)))
    mean = value["mean"] if "mean" in value else value["rate"]
    return Estimate(float(mean), float(value["low"]), float(value["high"]), n)


def one_of(rows: Sequence[Any], condition: str) -> Any:
    """Return the only row of a list of objects that satisfies "KEY=VALUE,...".

    Raises:
        UserError: If no row or several rows satisfy it.
    """
    # a comma before a space belongs to a value
    wanted = [part.partition("=")[::2] for part in re.split(r",(?! )", condition)]
    found = [
        row
        for row in rows
        if isinstance(row, dict) and all(key in row and _text(row[key]) == value for key, value in wanted)
    ]
    if len(found) != 1:
        raise UserError(f"{len(found)} of {len(rows)} rows have {condition}: expected one")
    return found[0]


def value_at(name: str, *keys: str) -> Any:
    """Return the value of a record at a path of keys of objects, positions in lists and conditions on rows."""
    found: Any = record(name)
    for at, key in enumerate(keys):
        place = " ".join([name, *keys[:at]])
        if isinstance(found, list) and "=" in key:
            found = one_of(found, key)
        elif isinstance(found, list) and key.lstrip("-").isdigit() and -len(found) <= int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, str) and "±" in found and key in ("0", "1"):
            found = float(found.split("±")[int(key)])
        else:
            there = (
                ", ".join(found)
                if isinstance(found, dict)
                else f"{len(found)} values"
                if isinstance(found, list)
                else repr(found)
            )
            raise UserError(f"{place} has no {key!r}: it has {there:.200}")
    return found


@figure
def get(name: str, *keys: str) -> Any:
    """Value in a record, e.g. `get paper/fig5 rows mode=open,K=5 judge object`; a last "/1000" divides it.

    An object with mean (or rate), low and high is an estimate; text like "1.29 ± 0.04" gives its numbers.
    """
    keys, divisor = _divided(keys)
    found = value_at(name, *keys)
    if isinstance(found, dict) and {"low", "high"} <= found.keys() and {"mean", "rate"} & found.keys():
        whole = estimate(found)
        found = [whole.mean, whole.low, whole.high]
    if isinstance(found, str):
        try:
            found = [float(part) for part in found.split("±")]
        except ValueError:
            raise UserError(f"{' '.join([name, *keys])} is text: {found!r:.60}") from None
    if divisor == 1:
        return found
    return [each / divisor for each in found] if isinstance(found, list) else found / divisor


def _divided(keys: tuple[str, ...]) -> tuple[tuple[str, ...], float]:
    """The keys without a last "/1000", and the divisor."""
    if not keys or not keys[-1].startswith("/"):
        return keys, 1.0
    try:
        return keys[:-1], float(keys[-1][1:])
    except ValueError:
        raise UserError(f"{keys[-1]!r}: expected a number after the slash, e.g. /1000") from None


@figure
def count(name: str, *keys: str) -> int:
    """Number of values in a list or an object of a record."""
    return len(value_at(name, *keys))


@figure
def span(name: str, *keys: str) -> tuple[float, float]:
    """Smallest and largest number of a list, or of the values of its objects under the last key."""
    keys, divisor = _divided(keys)
    found = value_at(name, *keys[:-1])
    if isinstance(found, list) and all(isinstance(row, dict) and keys[-1] in row for row in found):
        values = [row[keys[-1]] for row in found]
    else:
        values = value_at(name, *keys)
    values = list(values.values()) if isinstance(values, dict) else values
    return min(values) / divisor, max(values) / divisor


@figure
def hits(name: str, *keys: str) -> tuple[int, int]:
    """Hits and trials: of an object with hits and trials, identified and prompts, or mean and n."""
    found = value_at(name, *keys)
    for one, all_ in (("hits", "trials"), ("identified", "prompts")):
        if isinstance(found, dict) and {one, all_} <= found.keys():
            return found[one], found[all_]
    whole = estimate(found)
    return round(whole.mean * whole.n), whole.n


@claim
def is_(name: str, *keys: str) -> bool:
    """Whether a record has the value of the last word at the position that the other words name."""
    return _text(value_at(name, *keys[:-1])) == keys[-1]


@claim
def same(name: str, *others: str) -> bool:
    """Whether several positions in a record, each written KEY/KEY/..., have the same value."""
    found = [value_at(name, *other.split("/")) for other in others]
    return len(found) > 1 and all(each == found[0] for each in found)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
