"""Gaussian noise that nobody can compute again, for differential privacy."""

import os

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtri

_CHUNK = 1 << 16


def secret_normal(count: int) -> Float64[np.ndarray, " count"]:
    """`count` independent standard normal values from the operating system's entropy, by inverse transform.

        x = Phi^-1(u),   u = (k + 1/2) / 2^52,   k uniform in [0, 2^52)

    numpy's generators will not do: the state of MT19937 and of PCG64 follows from some of their outputs, and
    whoever knows some coordinates of the mean knows these. k + 1/2 is exact in float64, so that u is never 0
    or 1; |x| is at most 8.2.

    These are values of a grid in float64, not of the real line: see Mironov (2012,
    doi:10.1145/2382196.2382264) on what that can give away.
    """
    found = np.empty(count)
    for start in range(0, count, _CHUNK):
        part = found[start : start + _CHUNK]
        bits = np.frombuffer(os.urandom(8 * part.size), np.uint64) >> np.uint64(12)
        ndtri((bits + 0.5) * 2.0**-52, out=part)
    return found
