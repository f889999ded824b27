"""A lock that processes share by its file, and that ends with its holder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedaigc.errors import UserError

_POLL_S = 0.2
_MODE = 0o600


@contextmanager
def locked(path: Path, *, busy: str | None = None, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `path`, waiting for its holder; a process that dies gives it back.

    busy: do not wait for more than `patience_s`, but raise UserError with this text.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if busy is None else patience_s, mode=_MODE)
    try:
        lock.acquire(poll_interval=_POLL_S)
    except Timeout:
        raise UserError(busy or "") from None
    try:
        yield
    finally:
        lock.release()
