"""Checks of the values of a message: exact keys and types, closed patterns, bounded numbers and lengths."""

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
    """Check that values have exactly the expected keys and types, and return them.

    Raises:
        ValueError: If a key is missing or unexpected, or a value has another type.
    """
    for name, kind in expected.items():
        if name not in values:
            raise ValueError(f"the message lacks {name}")
        # not isinstance: True is an instance of int
        if type(values[name]) is not kind:
            raise ValueError(f"{name} is a {type(values[name]).__name__}, expected {kind.__name__}")
    if len(values) != len(expected):
        raise ValueError(f"the message has {len(values)} values, expected {', '.join(expected)}")
    return values


def quoted(value: object) -> str:
    """Quote a value of another machine for a record or a log: numbers themselves, else only the type."""
    if value is None or type(value) in (bool, int, float):
        return f"{value!r:.40}"
    return f"a {type(value).__name__}"


def check_text(name: str, text: object, pattern: str) -> None:
    """Raise ValueError unless `text` is a string of this pattern; the error does not quote it."""
    if type(text) is not str or not re.fullmatch(pattern, text):
        raise ValueError(f"invalid {name}: expected the form {pattern}")


def check_length(name: str, value: Sized, largest: int) -> None:
    """Raise ValueError if a text, or bytes, is longer than `largest`."""
    if len(value) > largest:
        raise ValueError(f"{name} has length {len(value)}: expected at most {largest}")


def check_range(values: Mapping[str, Any], **largest: int) -> None:
    """Raise ValueError if a number is below 0 or above its limit.

    Args:
        values: Numbers by name.
        **largest: Largest value of each name that is checked.
    """
    for name, limit in largest.items():
        if not 0 <= values[name] <= limit:
            raise ValueError(f"{name} is {values[name]}: expected 0 to {limit}")


def check_noise_seed(noise_seed: int) -> None:
    """Raise ValueError if a number is not a noise seed; seeds may be negative, see `rng.noise_generator`."""
    if not MIN_NOISE_SEED <= noise_seed <= MAX_SEED:
        raise ValueError(f"noise_seed is {noise_seed}: expected {MIN_NOISE_SEED} to {MAX_SEED}")


def state_header(text: str) -> dict[str, Any]:
    """Parse the header of a shared state.

    Raises:
        ValueError: If the header has other keys or types, or a value beyond its bound.
    """
    header = read_json(text, max_characters=MAX_STATE_HEADER_CHARACTERS, max_depth=1)
    if not isinstance(header, dict) or header.keys() != {"base_hash", "rank", "alpha", "boundary_log_snr"}:
        raise ValueError("the header of a shared state has unexpected or missing keys")
    check_text("base_hash", header["base_hash"], FINGERPRINT)
    rank, alpha, boundary = header["rank"], header["alpha"], header["boundary_log_snr"]
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ValueError(f"rank is {rank!r:.40}: expected 1 to {MAX_RANK}")
    if type(alpha) not in (int, float) or not 0 < alpha <= MAX_ALPHA:
        raise ValueError(f"alpha is {alpha!r:.40}: expected a number above 0, up to {MAX_ALPHA:g}")
    # infinite at the ends of some schedules
    if boundary is not None and (type(boundary) is not float or math.isnan(boundary)):
        raise ValueError(f"boundary_log_snr is {boundary!r:.40}: expected a number or null")
    return header
