"""Seeded, independent random streams: randomness is an argument, never module state."""

import hashlib

import numpy as np
import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, whatever else was drawn before."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: str | int) -> torch.Generator:
    """An independent CPU torch generator for the stream (seed, names...), e.g. rng(0, "noise", task_id)."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    """The numpy counterpart of `rng`."""
    return np.random.default_rng(derived_seed(seed, *names))
