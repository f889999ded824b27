"""Tensors from files and messages, in memory that starts on a cache line.

The matrix kernels of CPU libraries take another code path, and round differently in the last bit, if their
operands do not start on a cache line. A memory-mapped file or a message places tensors at arbitrary
addresses, while torch's own memory is always aligned. Equal values therefore give bitwise equal results only
if both are aligned.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fedaigc.errors import DamagedFile, UserError
from fedaigc.storage.atomic_file import write_file

Parts = Mapping[str, Mapping[str, Tensor]]
_ANY_MODE = 0o666
_METADATA = "fedaigc"

CACHE_LINE_BYTES = 64


def aligned(tensor: Tensor) -> Tensor:
    """Return the tensor itself if its memory starts on a cache line, else a copy that does."""
    return tensor if tensor.data_ptr() % CACHE_LINE_BYTES == 0 else tensor.clone()


@torch.no_grad()
def align(module: nn.Module) -> None:
    """Move every parameter and buffer of a module to memory that starts on a cache line."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = aligned(tensor.data)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a safetensors file.

    Raises:
        UserError: If the file cannot be opened, for instance because it does not exist.
        DamagedFile: If its content cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise UserError(f"no tensor file {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise DamagedFile(f"the tensor file {path} is damaged: {error}") from None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], mode: int = _ANY_MODE
) -> None:
    """Replace the content of `path` with a safetensors file."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_file(path, save(contiguous, metadata=dict(metadata)), mode)


def tensor_digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a header and every tensor: name, shape, data type and bytes, in mapping order."""
    digest = hashlib.sha256(header.encode())
    for name, tensor in tensors.items():
        values = tensor.detach().to("cpu").contiguous()
        digest.update(f"{name}/{tuple(values.shape)}/{values.dtype}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_parts(path: Path, header: Mapping[str, Any], parts: Parts, mode: int = _ANY_MODE) -> None:
    """Write weights in the format of this project, atomically: named parts with a header of JSON values.

    The result is a safetensors file whose tensors are named `<part>/<name>`. Its metadata contains the header
    and the digest of header and tensors.
    """
    named = {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    named = dict(sorted(named.items()))
    text = json.dumps(header, sort_keys=True)
    about = {"header": header, "digest": tensor_digest(text, named)}
    # one entry: safetensors writes several in any order, and equal weights are to be equal files
    write_tensors(path, named, {_METADATA: json.dumps(about, sort_keys=True)}, mode)


def read_parts(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Return the header and the parts of a file that `write_parts` wrote.

    Raises:
        UserError: If the file cannot be opened, for instance because it does not exist.
        DamagedFile: If it is not such a file, or its values differ from those written.
    """
    metadata, tensors = read_tensors(path)
    about = _about(metadata)
    if about is None or not all("/" in name for name in tensors):
        raise DamagedFile(
            f"{path} is not a weight file of this version: if an earlier version wrote it, use that one, "
            "or choose a new folder"
        )
    text = json.dumps(about["header"], sort_keys=True)
    if about["digest"] != tensor_digest(text, dict(sorted(tensors.items()))):
        raise DamagedFile(f"{path} is damaged: its values differ from those that were written; remove it")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, own = name.partition("/")
        parts.setdefault(part, {})[own] = tensor
    return about["header"], parts


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the header of a file that `write_parts` wrote, without its values; None if it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            about = _about(file.metadata() or {})
    except (OSError, SafetensorError):
        return None
    return about["header"] if about is not None else None


def _about(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Header and digest among the metadata of a file; None where there are none."""
    try:
        found = json.loads(metadata[_METADATA])
    except (KeyError, ValueError):
        return None
    if not isinstance(found, dict) or found.keys() != {"header", "digest"}:
        return None
    return found if isinstance(found["header"], dict) else None
