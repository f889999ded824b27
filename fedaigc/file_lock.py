"""A lock that processes share by its file, and that ends with its holder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedaigc.errors import UserError

_POLL_S = 0.2


@contextmanager
def locked(path: Path, *, busy: str | None = None, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `path`, waiting for its holder; a process that dies gives it back.

    busy: do not wait for more than `patience_s`, but raise UserError with this text.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy is not None else 0))
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise UserError(busy or "") from None
                time.sleep(_POLL_S)
        yield
