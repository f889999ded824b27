"""Atomic writes: a process that dies leaves the old file or the new one, never a part of either.

Data is on the disk before a name points to it. New files get the mode that the process sets for its files
(`storage.private_files`), or the mode that the caller passes.
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

_ANY_MODE = 0o666


def write_file(path: Path, data: bytes, mode: int = _ANY_MODE) -> None:
    """Replace the content of `path` with `data`."""
    _through_temporary(path, data, mode, lambda temporary: os.replace(temporary, path))


def write_new_file(path: Path, data: bytes, mode: int = _ANY_MODE) -> bool:
    """Create `path` with `data`; if it already exists, write nothing and return False."""
    try:
        # a link fails where a rename would overwrite, so two processes cannot both succeed
        _through_temporary(path, data, mode, lambda temporary: os.link(temporary, path))
    except FileExistsError:
        return False
    return True


def write_json(path: Path, value: Any, mode: int = _ANY_MODE) -> None:
    """Replace the content of `path` with `value` as JSON with sorted keys; a missing folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json_bytes(value), mode)


def read_json(path: Path) -> Any | None:
    """Return the JSON value in `path`; None if the file does not exist.

    Raises:
        ValueError: If the content is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def json_bytes(value: Any) -> bytes:
    """Encode `value` as JSON with sorted keys, one per line; unpaired surrogates are escaped as in JSON."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode(
        errors="backslashreplace"
    )


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], mode: int = _ANY_MODE
) -> None:
    """Replace the content of `path` with a safetensors file."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_file(path, save(contiguous, metadata=dict(metadata)), mode)


def sync_folder(path: Path) -> None:
    """Make the names of new files in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _through_temporary(path: Path, data: bytes, mode: int, finish: Callable[[Path], None]) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        finish(temporary)
    finally:
        temporary.unlink(missing_ok=True)
