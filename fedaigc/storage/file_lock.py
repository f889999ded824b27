"""A file lock for processes, which is released when its holder ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedaigc.errors import UserError

_POLL_S = 0.2
_MODE = 0o600


@contextmanager
def locked(path: Path, *, busy: str | None = None, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`; the lock of a process that dies is released.

    Args:
        path: The lock file; a missing folder is created.
        busy: Error text for a lock that another process holds. None waits without limit.
        patience_s: Seconds to wait before this error.

    Raises:
        UserError: With the text `busy`, if the lock was not acquired in time.
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


@contextmanager
def locked_without_trace(path: Path, *, busy: str) -> Iterator[None]:
    """As `locked`, without waiting; the lock file is removed in the end.

    Raises:
        UserError: With the text `busy`, if another process holds the lock.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=_MODE)
        found = _inode(path)
        with locked(path, busy=busy):
            # a holder that ends removes the file: then this is a lock that nobody else sees
            if found is None or _inode(path) != found:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock file `path`."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0, mode=_MODE):
            return False
    except Timeout:
        return True
