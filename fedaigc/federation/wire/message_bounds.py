"""What a value of a message may be: exact keys and types, closed patterns, bounded numbers and lengths."""

import math
import re
from collections.abc import Mapping, Sized
from typing import Any

from fedaigc.bounds import (
    FINGERPRINT,
    MAX_ALPHA,
    MAX_RANK,
    MAX_SEED,
    MAX_STATE_HEADER_CHARACTERS,
    MIN_NOISE_SEED,
)
from fedaigc.storage.bounded_json import read_json


def checked(values: dict[str, Any], expected: Mapping[str, type]) -> dict[str, Any]:
    """The values themselves. ValueError unless they have exactly these keys and types."""
    for name, kind in expected.items():
        if name not in values:
            raise ValueError(f"the message lacks {name}")
        # exactly: True is an int to isinstance
        if type(values[name]) is not kind:
            raise ValueError(f"{name} is a {type(values[name]).__name__}, expected {kind.__name__}")
    if len(values) != len(expected):
        raise ValueError(f"the message has {len(values)} values, expected {', '.join(expected)}")
    return values


def quoted(value: object) -> str:
    """A value of another machine for a record or a log: numbers as they are, of all else the type only."""
    if value is None or type(value) in (bool, int, float):
        return f"{value!r:.40}"
    return f"a {type(value).__name__}"


def check_text(name: str, text: object, pattern: str) -> None:
    """Raises ValueError for what is no text of this pattern; it is not quoted."""
    if type(text) is not str or not re.fullmatch(pattern, text):
        raise ValueError(f"a {name} has the form {pattern}")


def check_length(name: str, value: Sized, largest: int) -> None:
    """Raises ValueError for a text, or bytes, longer than this."""
    if len(value) > largest:
        raise ValueError(f"a {name} of length {len(value)}: at most {largest}")


def check_range(values: Mapping[str, Any], **largest: int) -> None:
    """Raises ValueError for a number below 0 or above its largest."""
    for name, limit in largest.items():
        if not 0 <= values[name] <= limit:
            raise ValueError(f"{name} is {values[name]}: expected 0 to {limit}")


def check_noise_seed(noise_seed: int) -> None:
    """Raises ValueError for a number that seeds no noise; negative ones do, see `rng.noise_generator`."""
    if not MIN_NOISE_SEED <= noise_seed <= MAX_SEED:
        raise ValueError(f"noise_seed is {noise_seed}: expected {MIN_NOISE_SEED} to {MAX_SEED}")


def state_header(text: str) -> dict[str, Any]:
    """The header of a shared state. ValueError for other keys, types or values beyond the bounds."""
    header = read_json(text, max_characters=MAX_STATE_HEADER_CHARACTERS, max_depth=1)
    if not isinstance(header, dict) or header.keys() != {"base_hash", "rank", "alpha", "boundary_log_snr"}:
        raise ValueError("the header of a shared state has other keys than one has")
    check_text("base_hash", header["base_hash"], FINGERPRINT)
    rank, alpha, boundary = header["rank"], header["alpha"], header["boundary_log_snr"]
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ValueError(f"rank is {rank!r:.40}: expected 1 to {MAX_RANK}")
    if type(alpha) not in (int, float) or not 0 < alpha <= MAX_ALPHA:
        raise ValueError(f"alpha is {alpha!r:.40}: expected above 0, to {MAX_ALPHA:g}")
    # infinite at the ends of some schedules
    if boundary is not None and (type(boundary) is not float or math.isnan(boundary)):
        raise ValueError(f"boundary_log_snr is {boundary!r:.40}: expected a number, or none")
    return header
