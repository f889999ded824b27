"""Atomic writes: a process that dies leaves the old file or the new one, never a part of either.

Data is on the disk before a name points to it. New files get the mode that the process sets for its files
(`storage.private_files`), or the mode that the caller passes.
"""

import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedaigc.storage.file_lock import locked

_ANY_MODE = 0o666
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NEW_LOCK = ".new.lock"


def write_file(path: Path, data: bytes, mode: int = _ANY_MODE) -> None:
    """Replace the content of `path` with `data`."""
    _through_temporary(path, data, mode, lambda temporary: os.replace(temporary, path))


def write_new_file(path: Path, data: bytes, mode: int = _ANY_MODE) -> bool:
    """Create `path` with `data`; if it already exists, write nothing and return False."""
    try:
        # a link fails where a rename would overwrite, so two processes cannot both succeed
        _through_temporary(path, data, mode, lambda temporary: _link(temporary, path))
    except FileExistsError:
        return False
    return True


def _link(temporary: Path, path: Path) -> None:
    """Give a file a new name; raises FileExistsError if it is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # a file system without hard links: all processes see this, and take turns
        with locked(path.parent / _NEW_LOCK):
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            os.replace(temporary, path)


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
    except OSError as error:
        if error.filename is None and error.errno is not None:
            # a full disk is told without the file
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
