"""A SuperLink of our own: started on free local ports, watched, and stopped with everything that it started.

`flwr run` by itself leaves a SuperLink behind, with the environment and the folder that it was started in;
later runs would go there and import from that folder.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from fedaigc.errors import UserError

CONNECTION = "fedaigc"
TAG = "FEDAIGC_LAUNCH"
# Flower's SuperLink, for this user's processes alone
SUPERLINK = (sys.executable, "-m", "fedaigc.federation.runtime.superlink_process")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_STOP_ATTEMPTS = 5
# Ray puts sockets into its folder, whose paths have at most 107 characters
_MAX_RAY_FOLDER = 40


def flower_environment(scratch: Path, threads: int) -> dict[str, str]:
    """Environment of all processes of a run.

    Nothing is installed, reported or downloaded, all files in `scratch`.
    """
    settings = {
        "FLWR_HOME": str(scratch / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # other ports of a SuperLink, where nobody would look at who connects
        "FLWR_INTERNAL_GRPC_CONTROL_API": "0",
        "FLWR_INTERNAL_GRPC_FLEET_API": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's ports take code from whoever knows the token
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        # each of many processes would advise on torchvision
        "TRANSFORMERS_VERBOSITY": "error",
        # marks what this launch started, also what detaches itself from its parent
        TAG: uuid.uuid4().hex,
        # Flower starts its parts by name
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    if len(str(scratch)) <= _MAX_RAY_FOLDER:
        settings["RAY_TMPDIR"] = str(scratch)
    return {**os.environ, **settings}


@contextlib.contextmanager
def superlink(scratch: Path, environment: dict[str, str]) -> Iterator[None]:
    """A SuperLink on free local ports, known to `flwr` as the connection.

    Stopped with all that it started.
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
    """Python ends on SIGTERM and SIGHUP without clean-up; inside, it leaves with its clean-up done.

    Exit status 128 + signal, as of a shell. Only where this is the main thread, the one that gets signals;
    a SIGHUP that is ignored (nohup) stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        # `timeout` and others signal twice: a second one must not end the clean-up
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
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1.0).is_success:
                return
        time.sleep(0.2)
    raise UserError(f"Flower's SuperLink did not start:\n{log.read_text(errors='replace')[-2000:]}")


def stop_all(process: "subprocess.Popen[bytes] | None", tag: str) -> None:
    """End the SuperLink, and then whatever else belongs to its launch: gently first, then without asking.

    A signal that comes meanwhile waits until it is done. None: the SuperLink did not start.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        _stop_undisturbed(process, tag)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _stop_undisturbed(process: "subprocess.Popen[bytes] | None", tag: str) -> None:
    # before anything ends: who loses its parent keeps its session
    sessions = _sessions_below(process)
    if process is not None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
    # several times: a raylet starts workers anew until it has ended itself
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
    """The sessions that the SuperLink and its children opened; none of them can hold a stranger."""
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
    """The living processes of the sessions, and those that were started with the tag.

    The tag alone does not do: Ray's agents write their titles over their environment.
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
