"""Who asks for what, and when: drawn arrivals, and logs of real ones.

A log is CSV with the columns `timestamp`, `user` and `prompt`, in any order and with any others beside them; so an
export of a log of real users can be replayed. A timestamp is a number of seconds, or a date and time by ISO 8601.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fedaigc.errors import UserError

COLUMNS = ("timestamp", "user", "prompt")


@dataclass(frozen=True)
class Call:
    """A prompt that a user sends.

    Attributes:
        time: Seconds after the first call.
        user: Number of the user, from 0.
        prompt: The prompt.
    """

    time: float
    user: int
    prompt: str


def poisson(number: int, rate: float, random: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Return the times of a Poisson process.

    Args:
        number: The number of arrivals.
        rate: Arrivals a second.
        random: Where they are drawn from.
    """
    return np.cumsum(random.exponential(1 / rate, number))


def bursts(
    number: int, rate: float, random: np.random.Generator, *, factor: float = 10.0, lasting: float = 20.0
) -> Float[np.ndarray, " n"]:
    """Return the times of a Poisson process whose rate is `factor` times as high in bursts as between them.

    Bursts and the times between them last as long on average, exponentially distributed, and the rate over both is
    `rate`.

    Args:
        number: The number of arrivals.
        rate: Arrivals a second on average.
        random: Where they are drawn from.
        factor: Rate of a burst, by that between bursts.
        lasting: Mean seconds of a burst.
    """
    quiet = 2 * rate / (1 + factor)
    times: list[float] = []
    now, loud = 0.0, False
    until = float(random.exponential(lasting))
    while len(times) < number:
        step = float(random.exponential(1 / (quiet * factor if loud else quiet)))
        if now + step > until:
            # the process has no memory: what was drawn beyond the change is drawn anew
            now, loud = until, not loud
            until += float(random.exponential(lasting))
            continue
        now += step
        times.append(now)
    return np.array(times)


def read_log(path: Path) -> list[Call]:
    """Return the calls of a log, by time; the first is at 0.

    Raises:
        UserError: If there is no such file, a column is missing, or a line cannot be read; the message names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = list(_read(path, csv.DictReader(file)))
    except OSError as error:
        raise UserError(f"no log {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV: {error}") from None
    if not found:
        raise UserError(f"{path} has no calls")
    found.sort(key=lambda each: each[0])
    users = {name: number for number, name in enumerate(dict.fromkeys(user for _, user, _ in found))}
    return [Call(time - found[0][0], users[user], prompt) for time, user, prompt in found]


def _read(path: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[float, str, str]]:
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}: expected {', '.join(COLUMNS)}")
    for row in reader:
        prompt = (row["prompt"] or "").strip()
        if not prompt:
            raise UserError(f"{path}, line {reader.line_num}: the prompt is missing")
        try:
            yield _seconds(row["timestamp"] or ""), row["user"] or "", prompt
        except ValueError:
            raise UserError(
                f"{path}, line {reader.line_num}: timestamp {row['timestamp']!r}: expected seconds, or a date and time "
                "as 2024-05-01T12:00:00"
            ) from None


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        at = datetime.fromisoformat(text.strip())
        # without a time zone all of a log are of one clock
        found = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not np.isfinite(found):
        raise ValueError(text)
    return found
