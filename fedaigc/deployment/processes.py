"""Processes of a deployment: tied to the life of their parent, found by their ports, and stopped."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

from fedaigc.errors import UserError

# in the relay's folder inside a device's home
RELAY_LOG = "relay.log"
SUPERNODE_LOG = "supernode.log"
MAX_LOG_BYTES = 8 << 20
_PR_SET_PDEATHSIG = 1
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0


def ended_with_parent() -> None:
    """Have the kernel terminate this process when its parent dies, however; for `preexec_fn` (Linux)."""
    _signalled_at_death_of_parent(signal.SIGTERM)


def killed_with_parent() -> None:
    """Like `ended_with_parent`, but kill at once: for a process that would first wait for others."""
    _signalled_at_death_of_parent(signal.SIGKILL)


def _signalled_at_death_of_parent(number: signal.Signals) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free at present."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def wait_for_port(
    port: int,
    process: "subprocess.Popen[bytes]",
    host: str = "127.0.0.1",
    timeout_s: float = _START_TIMEOUT_S,
) -> None:
    """Wait until something listens on a port, or the process ends.

    Args:
        port: Port to connect to.
        process: Process that is expected to listen.
        host: Address to connect to.
        timeout_s: Longest wait in seconds.

    Raises:
        UserError: If neither happens in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return  # the caller sees how it ended
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
            return
        time.sleep(0.1)
    raise UserError(f"nothing listens on {host}:{port} after {timeout_s:.0f} s")


def stopped(process: "subprocess.Popen[bytes]") -> None:
    """Stop a process: first by SIGTERM, then by SIGKILL."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
    if process.poll() is None:
        process.kill()
    process.wait()


def alive(pid: int, began: float | None = None) -> bool:
    """Return whether a process is alive.

    Args:
        pid: Process id.
        began: Start time as reported by `birth`; a later process with the same id does not count. None: any.
    """
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and began in (None, process.create_time())
    except psutil.NoSuchProcess:
        return False


def birth(pid: int) -> float:
    """Return the start time of a process, in seconds since the epoch."""
    return float(psutil.Process(pid).create_time())


def begin_anew(log: Path) -> None:
    """Move away a log that no process writes to any more; one older file is kept."""
    if log.exists():
        log.replace(log.with_suffix(".old.log"))


def keep_short(log: Path) -> None:
    """Rotate a log beyond `MAX_LOG_BYTES`, for files opened in append mode; one older file is kept."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        # the writer has the file open, so it must remain the same file
        shutil.copyfile(log, log.with_suffix(".old.log"))
        os.truncate(log, 0)
