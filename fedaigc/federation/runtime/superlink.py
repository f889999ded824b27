"""A private SuperLink: started on free local ports, and stopped with all processes that it started.

`flwr run` on its own leaves a SuperLink running, with the environment and the working directory in which it
was started; later runs would use that SuperLink and import from that directory.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from fedaigc.errors import UserError
from fedaigc.federation.runtime.environment import TAG, python_command

CONNECTION = "fedaigc"
# Flower's SuperLink, for processes of this user only
SUPERLINK = tuple(python_command("fedaigc.federation.runtime.superlink_process"))
# imports alone take minutes where many processes share a core
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 10.0
_STOP_ATTEMPTS = 5


@contextlib.contextmanager
def superlink(scratch: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a SuperLink on free local ports, known to `flwr` as `CONNECTION`.

    On exit it is stopped with all processes that it started.

    Args:
        scratch: Folder for its files.
        environment: Environment of the processes, see `flower_environment`.

    Raises:
        UserError: If the SuperLink does not start.
    """
    port = _free_port()
    home = Path(environment["FLWR_HOME"])
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    command = [*SUPERLINK, "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (scratch / "superlink.log").open("wb") as log:
        process: subprocess.Popen[bytes] | None = None
        try:
            process = subprocess.Popen(
                command,
                cwd=scratch,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            _wait_until_healthy(process, port, scratch / "superlink.log")
            yield
        finally:
            stop_all(process, environment[TAG])


@contextlib.contextmanager
def cleaning_up_when_stopped() -> Iterator[None]:
    """Let the process clean up on SIGTERM and SIGHUP, on which Python ends without clean-up by default.

    The exit status is 128 + signal, as in a shell. This applies only in the main thread, which receives the
    signals. A SIGHUP that is ignored (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        # `timeout` and others signal twice: the second signal must not interrupt the clean-up
        for other in replaced:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    replaced = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in replaced:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    # a proxy of the environment is for other machines
    with httpx.Client(trust_env=False, timeout=1.0) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"http://127.0.0.1:{port}/health").is_success:
                    return
            time.sleep(0.2)
    told = log.read_text(errors="replace")[-2000:]
    if process.poll() is None:
        told = (
            f"it did not answer within {_START_TIMEOUT_S:.0f} s; a busy machine is slow, so try again\n{told}"
        )
    raise UserError(f"Flower's SuperLink did not start: {told}")


def stop_all(process: "subprocess.Popen[bytes] | None", tag: str) -> None:
    """Stop the SuperLink and then all other processes of its launch: first by SIGTERM, then by SIGKILL.

    Signals that arrive meanwhile are held until this is done.

    Args:
        process: The SuperLink; None if it did not start.
        tag: Value of the environment variable `TAG` in the processes of the launch.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        _stop_undisturbed(process, tag)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _stop_undisturbed(process: "subprocess.Popen[bytes] | None", tag: str) -> None:
    # determined before any process ends: an orphan keeps its session
    sessions = _sessions_below(process)
    if process is not None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
    # several times: a raylet restarts workers until it has ended itself
    for attempt in range(_STOP_ATTEMPTS):
        left = _processes_of(tag, sessions)
        for leftover in left:
            with contextlib.suppress(psutil.Error):
                leftover.terminate() if attempt == 0 else leftover.kill()
        psutil.wait_procs(left, timeout=_STOP_TIMEOUT_S)
        if not left:
            break
    if process is not None:
        process.wait()


def _sessions_below(process: "subprocess.Popen[bytes] | None") -> set[int]:
    """Return the sessions that the SuperLink and its children opened; no unrelated process is in them."""
    if process is None:
        return set()
    sessions = set()
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(process.pid)
        for member in (root, *root.children(recursive=True)):
            with contextlib.suppress(OSError):
                sessions.add(os.getsid(member.pid))
    return sessions - {os.getsid(0)}


def _processes_of(tag: str, sessions: set[int]) -> list[psutil.Process]:
    """Return the living processes of the sessions, and those that were started with the tag.

    The tag alone is not enough: Ray's agents overwrite their environment with their process titles.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = os.getsid(process.pid) in sessions or process.environ().get(TAG) == tag
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
