"""Number formats on the wire: float32, float16, bfloat16, and int8 with stochastic rounding.

    int8:  scale = max |x| / 127 of each tensor,   q = floor(x / scale + u),  u uniform in [0, 1)

The mean of q scale is x (unbiased), and the error is at most one scale. The lossy formats carry an update as
its difference from what the client received, where a tensor of the same name and shape exists: otherwise a
small step would be lost in the rounding of a large weight.

These are the formats of updates and states. Those of the latents of a packet are in `wireless.number_format`.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from fedaigc.federation.wire.flat_arrays import Manifest, copied, flatten, manifest_of, split

WireFormat = Literal["float32", "float16", "bfloat16", "int8"]
BYTES_PER_VALUE: Mapping[WireFormat, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_DTYPES: Mapping[WireFormat, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,  # the bits: NumPy has no bfloat16, and Flower's arrays are NumPy's
    "int8": np.int8,
}
_INT8_MAX = 127


def encode(
    tensors: Mapping[str, Tensor], format: WireFormat, random: np.random.Generator | None = None
) -> tuple[np.ndarray, bytes]:
    """Encode tensors as one flat array.

    Args:
        tensors: float32 tensors by name.
        format: Number format on the wire.
        random: Generator for the rounding of int8; None for other formats.

    Returns:
        The flat array in the format's dtype, and the scales as bytes: one little-endian float32 per tensor
        for int8, else empty.

    Raises:
        TypeError: If a tensor is not float32, or if int8 has no generator.
        ValueError: If a lossy format cannot hold a value: non-finite values, and values that would overflow
            in float16.
    """
    flat = flatten(tensors)
    if format == "float32":
        return flat, b""
    if not np.isfinite(flat).all():
        raise ValueError(f"{format} cannot carry tensors with values that are not finite")
    if format == "bfloat16":
        bits = torch.from_numpy(flat).to(torch.bfloat16).view(torch.int16).numpy()
        return bits.view(np.uint16), b""
    if format == "float16":
        with np.errstate(over="ignore"):
            half = flat.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"the largest value is {np.abs(flat).max():.4g}, float16 ends at 65504")
        return half, b""
    if random is None:
        raise TypeError("int8 is rounded at random: expected a generator")
    quantized, scales = np.empty(flat.size, np.int8), []
    for part, chunk in zip(_parts(manifest_of(tensors)), _chunks(flat, manifest_of(tensors)), strict=True):
        scale = np.float32(np.abs(chunk).max(initial=0.0) / _INT8_MAX)
        scales.append(scale)
        if scale:
            drawn = random.random(chunk.size, dtype=np.float32)
            levels = np.floor(chunk / scale + drawn)
            quantized[part] = levels.clip(-_INT8_MAX, _INT8_MAX).astype(np.int8)
        else:
            quantized[part] = 0
    return quantized, np.array(scales, "<f4").tobytes()


def decode(array: np.ndarray, manifest: Manifest, format: WireFormat, scales: bytes) -> dict[str, Tensor]:
    """Decode what `encode` returned into float32 tensors.

    Args:
        array: Flat array in the format's dtype, of `manifest.num_values` values.
        manifest: Names and shapes of the tensors.
        format: Number format on the wire.
        scales: One little-endian float32 per tensor as bytes for int8, else empty.

    Raises:
        ValueError: If dtype, length or number of scales do not match manifest and format, or a scale is
            negative or not finite.
    """
    wanted = np.dtype(_DTYPES[format])
    if array.dtype != wanted or array.shape != (manifest.num_values,):
        raise ValueError(
            f"an array {array.shape} of {array.dtype}, expected ({manifest.num_values},) of {wanted}"
        )
    expected = 4 * len(manifest.entries) if format == "int8" else 0
    if len(scales) != expected:
        raise ValueError(f"{len(scales)} bytes of scales, expected {expected}")
    values = copied(_from_bfloat16(array) if format == "bfloat16" else array)
    if format == "int8":
        steps = np.frombuffer(scales, "<f4")
        if not (np.isfinite(steps).all() and (steps >= 0).all()):
            raise ValueError("invalid scales: expected finite numbers of at least 0")
        for part, step in zip(_parts(manifest), steps.tolist(), strict=True):
            values[part] *= step
    return split(values, manifest)


def differences(tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Subtract from each tensor its reference of the same name and shape, if one exists."""
    return {
        name: tensor - reference[name] if _alike(name, tensor, reference) else tensor
        for name, tensor in tensors.items()
    }


def sums(changes: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert `differences`, up to rounding."""
    return {
        name: change + reference[name] if _alike(name, change, reference) else change
        for name, change in changes.items()
    }


def _alike(name: str, tensor: Tensor, reference: Mapping[str, Tensor]) -> bool:
    return name in reference and reference[name].shape == tensor.shape


def _from_bfloat16(bits: np.ndarray) -> Float32[np.ndarray, " n"]:
    # bfloat16 is the upper half of a float32
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _parts(manifest: Manifest) -> list[slice]:
    ends = [0, *itertools.accumulate(math.prod(shape) for _, shape in manifest.entries)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def _chunks(flat: np.ndarray, manifest: Manifest) -> list[np.ndarray]:
    return [flat[part] for part in _parts(manifest)]
