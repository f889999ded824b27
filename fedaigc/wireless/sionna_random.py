"""Randomness is an argument, for sionna too, whose blocks draw from streams of the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def sionna_random(random: np.random.Generator) -> Iterator[None]:
    """Inside, sionna draws from a stream seeded by `random`; torch's own stream is left as it was."""
    from sionna.phy import config

    with torch.random.fork_rng():
        config.seed = int(random.integers(2**63))
        yield
