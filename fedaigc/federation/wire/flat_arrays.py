"""Tensors as one flat float32 buffer and a manifest.

A message holds one array instead of one per tensor: 512 arrays, 10 MB in total, took Flower eight times as
long as one array.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from numpy.lib import format as npy
from torch import Tensor

from fedaigc.bounds import (
    MAX_ARRAY_HEADER_BYTES,
    MAX_DIMENSIONS,
    MAX_MANIFEST_CHARACTERS,
    MAX_TENSORS,
    MAX_VALUES,
    TENSOR_NAME,
)
from fedaigc.storage.bounded_json import read_json
from fedaigc.storage.tensor_file import CACHE_LINE_BYTES

_NAME = re.compile(TENSOR_NAME)


@dataclass(frozen=True)
class Manifest:
    """Names and shapes of the tensors in a buffer, in order.

    Attributes:
        entries: (name, shape) of each tensor.
    """

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def num_values(self) -> int:
        """The length of the buffer in float32 values."""
        return sum(math.prod(shape) for _, shape in self.entries)

    def to_json(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps(self.entries)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read what `to_json` wrote.

        Raises:
            ValueError: If the text is anything else, repeats a name or exceeds the bounds on sizes.
        """
        try:
            values = read_json(text, max_characters=MAX_MANIFEST_CHARACTERS, max_depth=3)
        except ValueError as error:
            raise ValueError(f"invalid manifest: expected a JSON list of [name, shape] ({error})") from None
        if not isinstance(values, list) or len(values) > MAX_TENSORS:
            raise ValueError(f"invalid manifest: expected a JSON list of at most {MAX_TENSORS} [name, shape]")
        manifest = cls(tuple(_entry(value) for value in values))
        if len(dict(manifest.entries)) != len(values):
            raise ValueError("invalid manifest: a name occurs more than once")
        if manifest.num_values > MAX_VALUES:
            raise ValueError(f"invalid manifest: {manifest.num_values} values, expected at most {MAX_VALUES}")
        return manifest


def _entry(value: object) -> tuple[str, tuple[int, ...]]:
    """Parse a name and a shape; ValueError for anything else."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)):
        raise ValueError("invalid manifest: expected a JSON list of [name, shape]")
    name, shape = value
    if type(name) is not str or not _NAME.fullmatch(name):
        raise ValueError("invalid manifest: expected names of layers, of at most 256 characters")
    if len(shape) > MAX_DIMENSIONS or not all(
        type(side) is int and 0 <= side <= MAX_VALUES for side in shape
    ):
        raise ValueError(
            f"invalid manifest: expected shapes of at most {MAX_DIMENSIONS} integers from 0 to {MAX_VALUES}"
        )
    return name, tuple(shape)


def manifest_of(tensors: Mapping[str, Tensor]) -> Manifest:
    """Return the manifest of these tensors, in their order."""
    return Manifest(tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items()))


def flatten(tensors: Mapping[str, Tensor]) -> Float32[np.ndarray, " n"]:
    """Concatenate the tensors into one flat array.

    Raises:
        TypeError: If a tensor is not float32, as nothing is rounded here.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise TypeError(f"{name}: expected float32, got {tensor.dtype}")
    parts = [tensor.detach().cpu().contiguous().flatten().numpy() for tensor in tensors.values()]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def copied(array: Shaped[np.ndarray, " n"]) -> Float32[Tensor, " n"]:
    """Copy the values as float32 to memory aligned to a cache line (see `tensor_file`).

    The alignment of a message's bytes must not affect what is computed from them.
    """
    line = CACHE_LINE_BYTES // 4
    # NumPy asks for huge pages, which makes the first access to the memory of a large model twice as fast
    room = np.empty(array.size + line - 1, np.float32)
    start = -room.ctypes.data // 4 % line
    values = room[start : start + array.size]
    values[:] = array
    return torch.from_numpy(values)


def split(values: Float32[Tensor, " n"], manifest: Manifest) -> dict[str, Tensor]:
    """Split flat values into the tensors of a manifest, as views."""
    tensors = {}
    start = 0
    for name, shape in manifest.entries:
        stop = start + math.prod(shape)
        tensors[name] = values[start:stop].reshape(shape)
        start = stop
    return tensors


def array_of(data: bytes) -> Shaped[np.ndarray, "*shape"]:
    """Return the array in the bytes of an .npy file, the form in which Flower sends arrays.

    Returns:
        A read-only view; nothing is copied.

    Raises:
        ValueError: If the bytes are not an .npy file of version 1.0, are truncated, in column-major order or
            beyond the bounds on shapes.
    """
    stream = BytesIO(data)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("expected an array in version 1.0 of the .npy format")
    try:
        shape, column_major, dtype = npy.read_array_header_1_0(stream, max_header_size=MAX_ARRAY_HEADER_BYTES)
    except Exception as error:  # NumPy's reader evaluates the text and raises whatever its tokenizer raises
        raise ValueError(f"the header of the .npy file is invalid ({type(error).__name__})") from None
    if column_major and len(shape) > 1:
        raise ValueError("the array is in column-major order: expected row-major order")
    if len(shape) > MAX_DIMENSIONS or not all(0 <= side <= MAX_VALUES for side in shape):
        raise ValueError(f"the array has {len(shape)} dimensions: too many, or one of an invalid length")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype, math.prod(shape), stream.tell()).reshape(shape)
