"""Conditionings as integers modulo 2^64, whose sums are exact in any order.

A value x becomes

    q = round(clip(x, -L, L) 2^f) mod 2^64,   L = 2^16, f = 24

so a mean is off by at most 2^-25 a value, about 3e-8, as long as no value lies beyond L, the largest that half
precision knows. A sum of n values is below 2^63 for n < 2^23 and cannot wrap around.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float64, UInt64
from torch import Tensor

from fedaigc.errors import NotFinite, UserError

FRACTION_BITS = 24
RESOLUTION = 2.0**-FRACTION_BITS
LIMIT = 2.0**16
MAX_SUMMED = (1 << 23) - 1


def encode(values: Float64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Return the integers of values; those beyond `LIMIT` are clipped.

    Raises:
        NotFinite: If a value is not finite.
    """
    if not np.isfinite(values).all():
        raise NotFinite(
            "a conditioning holds values that are not finite: use another dtype, or another model"
        )
    return np.rint(np.clip(values, -LIMIT, LIMIT) / RESOLUTION).astype(np.int64).view(np.uint64)


def decode_mean(total: UInt64[np.ndarray, " n"], count: int) -> Float64[np.ndarray, " n"]:
    """Return the mean of `count` encoded vectors from their sum modulo 2^64.

    Raises:
        ValueError: If the count is below 1, or so large that sums may wrap around, or if a value lies beyond what
            `count` members can add up to: then a part of the sum is missing.
    """
    if not 1 <= count <= MAX_SUMMED:
        raise ValueError(f"a sum of {count}: expected 1 to {MAX_SUMMED}")
    mean = total.view(np.int64).astype(np.float64) * RESOLUTION / count
    if mean.size and float(np.abs(mean).max()) > LIMIT:
        raise ValueError(
            f"a sum holds means beyond {LIMIT:g}: a part of it is missing, or was not encoded so"
        )
    return mean


def flat(conditioning: Mapping[str, Tensor]) -> Float64[np.ndarray, " n"]:
    """Return the values of all floating-point tensors, in the order of their names."""
    parts = [t.detach().cpu().double().flatten().numpy() for _, t in _floats(conditioning)]
    return np.concatenate(parts) if parts else np.zeros(0)


def unflat(values: Float64[np.ndarray, " n"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert `flat`, in float32; tensors of other types are those of `like`.

    Raises:
        ValueError: If there are more or fewer values than in `like`.
    """
    if len(values) != num_values(like):
        raise ValueError(f"{len(values)} values: expected {num_values(like)}")
    found, start = dict(like), 0
    for name, tensor in _floats(like):
        part = torch.from_numpy(values[start : start + tensor.numel()].astype(np.float32))
        found[name] = part.reshape(tensor.shape)
        start += tensor.numel()
    return found


def num_values(conditioning: Mapping[str, Tensor]) -> int:
    """Return the length of `flat`."""
    return sum(tensor.numel() for _, tensor in _floats(conditioning))


def layout(conditioning: Mapping[str, Tensor]) -> str:
    """Return a SHA-256, in hex, of names and shapes of the floating-point tensors."""
    shapes = [(name, list(tensor.shape)) for name, tensor in _floats(conditioning)]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()


def check_alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Check that two conditionings can be averaged.

    Raises:
        UserError: If names or shapes differ, or if a tensor that is not floating-point, such as a mask, has other
            values: there is no mean of masks.
    """
    shapes = [
        {name: (tuple(t.shape), t.is_floating_point()) for name, t in each.items()} for each in (one, other)
    ]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"conditionings of the form {shapes[0]} and {shapes[1]} have no mean: expected the same names and shapes"
        )
    for name, tensor in one.items():
        if not tensor.is_floating_point() and not torch.equal(tensor.cpu(), other[name].cpu()):
            raise UserError(
                f"{name} of two conditionings differs and is no floating-point tensor, so there is no mean: use "
                'conditioning = "public"'
            )


def _floats(conditioning: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, tensor in sorted(conditioning.items()) if tensor.is_floating_point()]
