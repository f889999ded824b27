"""Cases of which the first are quick tests, and all others slow ones: they show the same of another value."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick_first(values: Iterable[Any], quick: int = 1, ids: Iterable[str] | None = None) -> list[Any]:
    """Return the values as parameters of a test, all but the first `quick` marked as slow."""
    found = list(values)
    names = list(ids) if ids is not None else [None] * len(found)
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), id=name, marks=mark)
        for at, (value, name) in enumerate(zip(found, names, strict=True))
        for mark in [() if at < quick else (pytest.mark.slow,)]
    ]
