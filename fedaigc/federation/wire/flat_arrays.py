"""Tensors as one flat float32 buffer and a manifest.

One array a message instead of one a tensor: 512 arrays of 10 MB in all took Flower eight times as long as
one.
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
    """Names and shapes of the tensors in a buffer, in their order."""

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def num_values(self) -> int:
        """Length of the buffer in float32 values."""
        return sum(math.prod(shape) for _, shape in self.entries)

    def to_json(self) -> str:
        """The manifest as JSON."""
        return json.dumps(self.entries)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read what `to_json` wrote; ValueError for anything else, a repeated name or an absurd size."""
        try:
            values = read_json(text, max_characters=MAX_MANIFEST_CHARACTERS, max_depth=3)
        except ValueError as error:
            raise ValueError(f"a manifest is a JSON list of [name, shape]: {error}") from None
        if not isinstance(values, list) or len(values) > MAX_TENSORS:
            raise ValueError(f"a manifest is a JSON list of [name, shape], of {MAX_TENSORS} at most")
        manifest = cls(tuple(_entry(value) for value in values))
        if len(dict(manifest.entries)) != len(values):
            raise ValueError("a manifest has each name once")
        if manifest.num_values > MAX_VALUES:
            raise ValueError(f"a manifest of {manifest.num_values} values: at most {MAX_VALUES}")
        return manifest


def _entry(value: object) -> tuple[str, tuple[int, ...]]:
    """Name and shape. ValueError for anything else."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)):
        raise ValueError("a manifest is a JSON list of [name, shape]")
    name, shape = value
    if type(name) is not str or not _NAME.fullmatch(name):
        raise ValueError("the names of a manifest are those of layers, of 256 characters at most")
    if len(shape) > MAX_DIMENSIONS or not all(
        type(side) is int and 0 <= side <= MAX_VALUES for side in shape
    ):
        raise ValueError(
            f"a shape of a manifest holds at most {MAX_DIMENSIONS} whole numbers, from 0 to {MAX_VALUES}"
        )
    return name, tuple(shape)


def manifest_of(tensors: Mapping[str, Tensor]) -> Manifest:
    """The manifest of these tensors, in their order."""
    return Manifest(tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items()))


def flatten(tensors: Mapping[str, Tensor]) -> Float32[np.ndarray, " n"]:
    """The tensors one after the other.

    Raises TypeError for a dtype other than float32: nothing is rounded.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise TypeError(f"{name}: expected float32, got {tensor.dtype}")
    parts = [tensor.detach().cpu().contiguous().flatten().numpy() for tensor in tensors.values()]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def copied(array: Shaped[np.ndarray, " n"]) -> Float32[Tensor, " n"]:
    """The values as float32, from the start of a cache line on (see `tensor_file`).

    Where the bytes of a message lie must not show in what is computed from them.
    """
    line = CACHE_LINE_BYTES // 4
    # memory of numpy: it asks for large pages, which makes the first touch of a large model twice as fast
    room = np.empty(array.size + line - 1, np.float32)
    start = -room.ctypes.data // 4 % line
    values = room[start : start + array.size]
    values[:] = array
    return torch.from_numpy(values)


def split(values: Float32[Tensor, " n"], manifest: Manifest) -> dict[str, Tensor]:
    """The tensors of a manifest as views of its values."""
    tensors = {}
    start = 0
    for name, shape in manifest.entries:
        stop = start + math.prod(shape)
        tensors[name] = values[start:stop].reshape(shape)
        start = stop
    return tensors


def array_of(data: bytes) -> Shaped[np.ndarray, "*shape"]:
    """The array in the bytes of an .npy file, as Flower sends arrays: a read-only view, nothing is copied.

    Raises ValueError for bytes that are no such file, or are cut.
    """
    stream = BytesIO(data)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("an array of another version of the .npy format than 1.0")
    try:
        shape, column_major, dtype = npy.read_array_header_1_0(stream, max_header_size=MAX_ARRAY_HEADER_BYTES)
    except Exception as error:  # numpy's reader evaluates the text, and raises what its tokenizer does
        raise ValueError(f"no header of an .npy file ({type(error).__name__})") from None
    if column_major and len(shape) > 1:
        raise ValueError("an array in column-major order")
    if len(shape) > MAX_DIMENSIONS or not all(0 <= side <= MAX_VALUES for side in shape):
        raise ValueError(f"an array of {len(shape)} dimensions, or one that is none or too long")
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype, math.prod(shape), stream.tell()).reshape(shape)
