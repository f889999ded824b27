"""A SuperLink of our own: started on free local ports, watched, and stopped with everything that it started.

`flwr run` by itself leaves a SuperLink behind, with the environment and the folder that it was started in;
later runs would go there and import from that folder.
"""

import contextlib
import os
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
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
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
        "RAY_USAGE_STATS_ENABLED": "0",
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
    port, control_port = _free_ports()
    home = Path(environment["FLWR_HOME"])
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--control-api-address",
        f"127.0.0.1:{control_port}",
    ]
    with _ended_by_sigterm(), (scratch / "superlink.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(process, port, scratch / "superlink.log")
            yield
        finally:
            _stop(process, environment[TAG])


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Python ends on SIGTERM without clean-up; inside, it cleans up first (where this is the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1.0).is_success:
                return
        time.sleep(0.2)
    raise UserError(f"Flower's SuperLink did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: "subprocess.Popen[bytes]", tag: str) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    left = _processes_of(tag)
    for leftover in left:
        with contextlib.suppress(psutil.Error):
            leftover.terminate()
    _, alive = psutil.wait_procs(left, timeout=_STOP_TIMEOUT_S)
    for leftover in alive:
        with contextlib.suppress(psutil.Error):
            leftover.kill()
    psutil.wait_procs(alive, timeout=_STOP_TIMEOUT_S)
    process.wait()


def _processes_of(tag: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(TAG) == tag:
                found.append(process)
    return found


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
