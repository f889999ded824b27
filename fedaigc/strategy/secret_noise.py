"""Gaussian noise for differential privacy that nobody can compute again."""

import os

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtri

_CHUNK = 1 << 16


def secret_normal(count: int) -> Float64[np.ndarray, " count"]:
    """Draw `count` independent standard normal values from the operating system's entropy.

    The values are drawn by inverse transform:

        x = Phi^-1(u),   u = (k + 1/2) / 2^52,   k uniform in [0, 2^52)

    numpy's generators are not suitable: the state of MT19937 and of PCG64 follows from some of their outputs,
    and anyone who knows some coordinates of the mean knows these outputs. k + 1/2 is exact in float64, so u
    is never 0 or 1, and |x| is at most 8.2.

    The values lie on a grid in float64, not on the real line: see Mironov (2012, doi:10.1145/2382196.2382264)
    on what that can reveal.
    """
    found = np.empty(count)
    for start in range(0, count, _CHUNK):
        part = found[start : start + _CHUNK]
        bits = np.frombuffer(os.urandom(8 * part.size), np.uint64) >> np.uint64(12)
        ndtri((bits + 0.5) * 2.0**-52, out=part)
    return found
