"""Flower's simulation in processes of our own: its SuperLink and Ray are started, watched and stopped here.

`flwr run` by itself leaves a SuperLink behind, with the environment and the folder that it was started in;
later runs would go there and import from that folder. It installs the app's dependencies unless told not to,
and exits 0 when the run failed. So: own ports, a private FLWR_HOME, a neutral folder, and the status from
`flwr ls`.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil

from fedaigc.errors import UserError
from fedaigc.federation.config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.record import read_record
from fedaigc.federation.roster import Progress
from fedaigc.federation.server_app import PROGRESS

LOG = "flower.log"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_TAG = "FEDAIGC_LAUNCH"
_CONNECTION = "fedaigc"
_RELEVANT_LINES = 15
# Ray puts sockets into its folder, whose paths have at most 107 characters
_MAX_RAY_FOLDER = 40


def run_with_flower(
    config: FederationConfig, progress: Progress | None = None, on_log: Callable[[str], None] | None = None
) -> None:
    """Run `config` under Flower's simulation with `config.workers` Ray workers.

    Raises UserError when the run did not finish well: with the server's own reason where the record has one,
    else with the last lines of the log that tell of an error. Nothing that was started is left running.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / "record.json").unlink(missing_ok=True)
    with _scratch_folder() as scratch, (config.output / LOG).open("w", encoding="utf-8") as log:
        stage_app(scratch / "app")
        environment = _environment(scratch, config.threads)
        with _superlink(scratch, environment):
            run_config = scratch / "run.toml"
            # JSON escapes are TOML escapes, so that a JSON string of the JSON is a TOML string
            run_config.write_text(
                f"{RUN_CONFIG_KEY} = {json.dumps(config.to_run_config()[RUN_CONFIG_KEY])}\n"
            )
            command = ["run", str(scratch / "app"), _CONNECTION, "--stream", "--run-config", str(run_config)]
            sizes = {
                "num-supernodes": config.num_clients,
                "init-args-num-cpus": config.workers,
                "client-resources-num-cpus": 1,
            }
            for name, value in sizes.items():
                command += ["--federation-config", f"{name}={value}"]
            lines = _stream(command, scratch, environment, log.write, progress, on_log)
            status, details = _status(scratch, environment)
    if status == "finished:completed":
        return
    reason = _server_reason(config.output)
    if reason is not None:
        raise UserError(reason)
    relevant = [line for line in lines if _is_relevant(line)][-_RELEVANT_LINES:] or lines[-_RELEVANT_LINES:]
    raise UserError(
        f"the run ended as {status!r} {details}\n"
        + "".join(relevant)
        + f"the whole log: {config.output / LOG}"
    )


def _server_reason(output: Path) -> str | None:
    """The server's own words, when it ended with an error that is meant for users."""
    try:
        record = read_record(output)
    except UserError:
        return None
    return str(record["error"]) if record.get("error_kind") == "error" else None


def stage_app(folder: Path) -> None:
    """Write the Flower app: the strategies, and a pyproject that names the installed library's components.

    The same whether fedaigc was installed from a wheel or runs from a checkout; weights stay in the library.
    """
    spec = importlib.util.find_spec("strategies")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package `strategies` is missing: reinstall fedaigc")
    source = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(source, folder / "strategies", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(
        f"""[project]
name = "fedaigc"
version = "{version("fedaigc")}"
description = "Federated learning for collaborative diffusion"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedaigc"

[tool.flwr.app.components]
serverapp = "fedaigc.federation.server_app:app"
clientapp = "fedaigc.federation.client_app:app"

[tool.flwr.app.config]
{RUN_CONFIG_KEY} = ""
"""
    )


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fa-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(scratch: Path, threads: int) -> dict[str, str]:
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
        _TAG: uuid.uuid4().hex,
        # Flower starts its parts by name
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    if len(str(scratch)) <= _MAX_RAY_FOLDER:
        settings["RAY_TMPDIR"] = str(scratch)
    return {**os.environ, **settings}


@contextlib.contextmanager
def _superlink(scratch: Path, environment: dict[str, str]) -> Iterator[None]:
    """A SuperLink on free local ports, known to `flwr` as the connection.

    Stopped with all that it started.
    """
    port, control_port = _free_ports()
    home = Path(environment["FLWR_HOME"])
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
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
    with (scratch / "superlink.log").open("wb") as log:
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
            _stop(process, environment[_TAG])


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
            if process.environ().get(_TAG) == tag:
                found.append(process)
    return found


def _stream(
    command: list[str],
    scratch: Path,
    environment: dict[str, str],
    write: Callable[[str], object],
    progress: Progress | None,
    on_log: Callable[[str], None] | None,
) -> list[str]:
    """Start the run and pass its log on, line by line, until it ends."""
    lines: list[str] = []
    with subprocess.Popen(
        ["flwr", *command],
        cwd=scratch,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                write(line)
                if PROGRESS in line and progress is not None:
                    label, _, counts = line.partition(PROGRESS)[2].strip().rpartition(": ")
                    done, _, total = counts.partition(" of ")
                    progress(label, int(done), int(total))
                elif on_log is not None:
                    on_log(line.rstrip("\n"))
        except BaseException:
            process.terminate()
            raise
    return lines


def _status(scratch: Path, environment: dict[str, str]) -> tuple[str, str]:
    """Status of the only run and its details, once Flower has settled it."""
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while True:
        answer = subprocess.run(
            ["flwr", "ls", _CONNECTION, "--format", "json"],
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            runs = json.loads(answer.stdout)["runs"]
        except (ValueError, KeyError):
            return "unknown", (answer.stdout + answer.stderr).strip()
        if not runs:
            return "not started", ""
        status, details = runs[0]["status"], runs[0]["status-details"] or ""
        if status.startswith("finished") or time.monotonic() > deadline:
            return status, details
        time.sleep(0.3)


def _is_relevant(line: str) -> bool:
    return any(word in line for word in ("Error", "ERROR", "Exception", "exception", "failed", "Traceback"))


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
