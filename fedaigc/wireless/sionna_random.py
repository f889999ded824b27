"""Explicit randomness for sionna, whose blocks draw from streams of the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch

from fedaigc.extras import require_extra


@cache
def load_sionna() -> None:
    """Import sionna and restore torch's own random stream, which sionna seeds as it loads.

    Call this function before any import of sionna.

    Raises:
        MissingExtra: If sionna is not installed.
    """
    require_extra("radio", "radio channels")
    with torch.random.fork_rng():
        import sionna.phy  # noqa: F401


@contextmanager
def sionna_random(random: np.random.Generator) -> Iterator[None]:
    """Make sionna draw from a stream seeded by `random`; torch's own stream is restored on exit."""
    load_sionna()
    from sionna.phy import config

    with torch.random.fork_rng():
        config.seed = int(random.integers(2**63))
        yield
