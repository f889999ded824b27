"""Flower's simulation as one call: app package, run, log and actual status.

By default `flwr run` installs the app's dependencies, and it exits with status 0 even if the run failed. The
app package therefore declares no dependencies, and the status comes from `flwr ls`.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, SERVER_CONFIG_KEY, FederationConfig
from fedaigc.federation.output.records import read_record
from fedaigc.federation.progress import OnProgress, Progress
from fedaigc.federation.runtime.environment import MAX_RAY_FOLDER, flower_environment
from fedaigc.federation.runtime.superlink import CONNECTION, cleaning_up_when_stopped, superlink
from fedaigc.storage.private_files import close_files, private_files

LOG = "flower.log"
# for temporary files, besides the one that TMPDIR names
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_SETTLE_TIMEOUT_S = 10.0
_RELEVANT_LINES = 15


def run_with_flower(
    config: FederationConfig, progress: OnProgress | None = None, on_log: Callable[[str], None] | None = None
) -> None:
    """Run a federation under Flower's simulation with `config.workers` Ray workers.

    No started process is left running.

    Args:
        config: Configuration of the run.
        progress: Called with each reply of a device.
        on_log: Called with each line of Flower's log that is not passed to `progress`.

    Raises:
        UserError: If the run failed, with the server's own reason if the record has one, else with the last
            lines of the log that report an error.
    """
    with private_files():
        _run_with_flower(config, progress, on_log)


def _run_with_flower(
    config: FederationConfig, progress: OnProgress | None, on_log: Callable[[str], None] | None
) -> None:
    sizes = backend_sizes(config)
    config.output.mkdir(parents=True, exist_ok=True)
    if not config.resume:
        (config.output / "record.json").unlink(missing_ok=True)
    close_files(config.output, LOG)
    with (
        cleaning_up_when_stopped(),
        _scratch_folder() as scratch,
        (config.output / LOG).open("w", encoding="utf-8") as log,
    ):
        stage_app(scratch / "app")
        environment = flower_environment(scratch, config.threads)
        with superlink(scratch, environment):
            run_config = scratch / "run.toml"
            # a JSON string is a TOML string, unless it escapes an emoji as a surrogate pair
            text = json.dumps(config.to_run_config()[RUN_CONFIG_KEY], ensure_ascii=False)
            run_config.write_text(f"{RUN_CONFIG_KEY} = {text}\n", encoding="utf-8")
            command = ["run", str(scratch / "app"), CONNECTION, "--stream", "--run-config", str(run_config)]
            for name, value in sizes.items():
                command += ["--federation-config", f"{name}={value}"]
            lines = stream_run(command, scratch, environment, log.write, progress, on_log)
            status, details = run_status(scratch, environment)
    check_ended_well(status, details, config, lines)


def backend_sizes(config: FederationConfig) -> dict[str, int | float]:
    """Return what Flower's simulation is given: nodes, and the CPUs and GPUs of all workers and of each.

    Without GPUs for its workers, Ray would hide them from the clients.

    Raises:
        UserError: If the clients would get more of a GPU than this machine has, or the device names one GPU.
    """
    from fedaigc.diffusion.loading import resolve_device

    sizes: dict[str, int | float] = {
        "num-supernodes": config.num_clients,
        "init-args-num-cpus": config.workers,
        "client-resources-num-cpus": 1,
    }
    device = resolve_device(config.model.device)
    if not device.startswith("cuda"):
        return sizes
    if device != "cuda":
        raise UserError(
            f'model.device is {device!r} with the backend "ray", which gives each worker GPUs of its own: use "cuda", '
            "and choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    import torch

    count = torch.cuda.device_count()
    share = min(1.0, count / config.workers) if config.client_gpus is None else config.client_gpus
    if share > count:
        raise UserError(f"client_gpus is {share:g}: this machine has {count}, so no client would ever start")
    return sizes | {"init-args-num-gpus": count, "client-resources-num-gpus": share}


def check_ended_well(status: str, details: str, config: FederationConfig, lines: list[str]) -> None:
    """Check that a run completed.

    Args:
        status: Status of the run, as Flower reports it.
        details: Details of the status.
        config: Configuration of the run.
        lines: Lines of the log.

    Raises:
        UserError: If the run did not complete, with the server's own reason if the record has one, else with
            the lines of the log that report an error.
    """
    if status == "finished:completed":
        return
    reason = _server_reason(config.output)
    if reason is not None:
        raise UserError(reason)
    relevant = [line for line in lines if _is_relevant(line)][-_RELEVANT_LINES:] or lines[-_RELEVANT_LINES:]
    raise UserError(
        f"the run ended as {status!r} {details}\n" + "".join(relevant) + f"full log: {config.output / LOG}"
    )


def _server_reason(output: Path) -> str | None:
    """Return the server's own reason if it ended with an error meant for users."""
    try:
        record = read_record(output)
    except UserError:
        return None
    return record.error if record.error_kind == "error" else None


def stage_app(folder: Path) -> None:
    """Write the Flower app: a pyproject that names the components of the installed library, without code.

    The app is the same whether fedaigc was installed from a wheel or runs from a checkout.

    Args:
        folder: Folder to create.
    """
    folder.mkdir(parents=True)
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
serverapp = "fedaigc.federation.server.server_app:app"
clientapp = "fedaigc.federation.client.client_app:app"

[tool.flwr.app.config]
{RUN_CONFIG_KEY} = ""
{SERVER_CONFIG_KEY} = ""
"""
    )


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    folder = _short_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> Path:
    """Create a folder for temporary files, in another place where the path of TMPDIR is too long for sockets."""
    for parent in (None, *_SHORT_FOLDERS):
        try:
            folder = Path(tempfile.mkdtemp(prefix="fa-", dir=parent))
        except OSError:
            continue
        if len(os.fsencode(folder)) <= MAX_RAY_FOLDER:
            return folder
        folder.rmdir()
    raise UserError(
        f"{tempfile.gettempdir()} is no folder for temporary files: workers need one whose path has less than "
        f"{MAX_RAY_FOLDER - 12} characters; name it in TMPDIR"
    )


def stream_run(
    command: list[str],
    scratch: Path,
    environment: dict[str, str],
    write: Callable[[str], object],
    progress: OnProgress | None,
    on_log: Callable[[str], None] | None,
) -> list[str]:
    """Start a run and forward its log, line by line, until it ends.

    Args:
        command: Arguments of `flwr`.
        scratch: Working directory.
        environment: Environment of the processes, see `flower_environment`.
        write: Called with every line.
        progress: Called with the progress that a line reports.
        on_log: Called with every line that is not passed to `progress`.

    Returns:
        The lines of the log.
    """
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
                told = Progress.from_line(line) if progress is not None else None
                if progress is not None and told is not None:
                    progress(told)
                elif on_log is not None:
                    on_log(line.rstrip("\n"))
        except BaseException:
            process.terminate()
            raise
    return lines


def ask_flwr(
    command: Sequence[str], scratch: Path, environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a `flwr` command on the SuperLink; its output is JSON if the command succeeds."""
    return subprocess.run(
        ["flwr", *command, CONNECTION, "--format", "json"],
        cwd=scratch,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_ids(scratch: Path, environment: dict[str, str]) -> set[str]:
    """Return the ids of all runs of the SuperLink. UserError if it does not answer."""
    return {str(run["run-id"]) for run in _runs(scratch, environment)}


def runs_going_on(scratch: Path, environment: dict[str, str]) -> set[str]:
    """Return the ids of the runs that have not ended. UserError if the SuperLink does not answer."""
    return {str(run["run-id"]) for run in _runs(scratch, environment) if not _ended(run)}


def stop_run(run_id: str, scratch: Path, environment: dict[str, str]) -> None:
    """Have the SuperLink stop a run; its ServerApp ends at its next request.

    Raises:
        UserError: If the run was not stopped, with Flower's output.
    """
    done = ask_flwr(["stop", run_id], scratch, environment)
    if run_id in runs_going_on(scratch, environment):
        raise UserError(f"run {run_id} was not stopped:\n{(done.stdout + done.stderr).strip()}")


def _ended(run: Mapping[str, Any]) -> bool:
    return str(run["status"]).startswith("finished")


def run_status(scratch: Path, environment: dict[str, str], before: Collection[str] = ()) -> tuple[str, str]:
    """Return the status of a new run, once Flower has settled it or after a timeout.

    Args:
        scratch: Working directory.
        environment: Environment of the processes, see `flower_environment`.
        before: Ids of the earlier runs.

    Returns:
        Status and details. The status is "unknown" if the SuperLink does not answer and "not started" if no
        new run exists.
    """
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    while True:
        try:
            runs = [run for run in _runs(scratch, environment) if str(run["run-id"]) not in before]
        except UserError as error:
            return "unknown", str(error)
        if not runs:
            return "not started", ""
        status, details = runs[0]["status"], runs[0]["status-details"] or ""
        if _ended(runs[0]) or time.monotonic() > deadline:
            return status, details
        time.sleep(0.3)


def _runs(scratch: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    answer = ask_flwr(["ls"], scratch, environment)
    try:
        runs: list[dict[str, Any]] = json.loads(answer.stdout)["runs"]
    except (ValueError, KeyError) as error:
        raise UserError((answer.stdout + answer.stderr).strip()) from error
    return runs


def _is_relevant(line: str) -> bool:
    return any(word in line for word in ("Error", "ERROR", "Exception", "exception", "failed", "Traceback"))
