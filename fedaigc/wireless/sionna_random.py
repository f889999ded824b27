"""Randomness is an argument, for sionna too, whose blocks draw from streams of the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch


@cache
def load_sionna() -> None:
    """Import sionna, which seeds torch's own stream as it loads: it is put back. Before any import of it."""
    with torch.random.fork_rng():
        import sionna.phy  # noqa: F401


@contextmanager
def sionna_random(random: np.random.Generator) -> Iterator[None]:
    """Inside, sionna draws from a stream seeded by `random`; torch's own stream is left as it was."""
    load_sionna()
    from sionna.phy import config

    with torch.random.fork_rng():
        config.seed = int(random.integers(2**63))
        yield
