"""A stopped run under Flower leaves no process and no folder, whatever it was doing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.runtime.environment import TAG
from fedaigc.federation.runtime.superlink import stop_all
from tests.small_run import MakeRun

PATIENCE_S = 900.0


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files with a short path, since Ray puts sockets into it."""
    folder = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def started_in(scratch: Path) -> dict[int, str]:
    """Return the living processes of a launch with a working folder below this one, and their names.

    They are found by the working folder, since Ray's agents overwrite their environment with their titles.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            # of a folder that is removed already the system says so behind its path
            if process.cwd().startswith(str(scratch / "t")) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process.name()
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, f"it ended by itself:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def launch(config: FederationConfig, scratch: Path) -> "subprocess.Popen[str]":
    """Start `fedaigc simulate` as a user does, with its temporary files in the folder."""
    text = f"""
homes = {json.dumps(str(config.homes))}
output = {json.dumps(str(config.output))}
num_clients = {config.num_clients}
backend = "ray"

[model]
name = {json.dumps(config.model.name)}
height = {config.model.height}
width = {config.model.width}

[adapter]
rank = 2

[rounds]
count = 10000

[training]
local_steps = 1
personal_steps = 1
batch_size = 2
"""
    file = scratch / "federation.toml"
    file.write_text(text)
    (scratch / "t").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    root = str(Path(__file__).parents[3])
    environment |= {"TMPDIR": str(scratch / "t"), "PYTHONPATH": root}
    return subprocess.Popen(
        [sys.executable, "-m", "fedaigc.cli.main", "simulate", str(file)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # not the session of the tests: it would get their signals, and they its
        start_new_session=True,
    )


def rounds_done(config: FederationConfig) -> int:
    try:
        return len(json.loads((config.output / "record.json").read_text())["rounds"])
    except OSError:
        return 0


CHILD = """
import ray._raylet, time
ray._raylet.setproctitle("ray::DashboardAgent")
print("ready", flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_process_that_wrote_over_its_environment_is_stopped_too() -> None:
    """As with Ray's agents, the parent ends first, so neither the tag nor a parent identifies the process."""
    tag = "a-tag-of-this-test"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env=os.environ | {TAG: tag},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert TAG not in child.environ()
    try:
        stop_all(parent, tag)
        assert parent.poll() is not None
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    finally:
        parent.kill()
        if child.is_running():
            child.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"),
    [("starting", signal.SIGTERM), ("training", signal.SIGTERM), ("training", signal.SIGHUP)],
    ids=["SIGTERM while the SuperLink starts", "SIGTERM in a round", "SIGHUP in a round"],
)
def test_a_signal_ends_a_run_and_all_that_it_started(
    make_run: MakeRun, scratch: Path, moment: str, number: signal.Signals
) -> None:
    """After two signals, as from `timeout`, it still cleans up, and then ends with 128 plus one of the signals."""
    config = make_run()
    process = launch(config, scratch)
    try:
        wait_for(lambda: bool(started_in(scratch)), process)
        if moment == "training":
            wait_for(lambda: rounds_done(config) >= 1, process)
            names = set(started_in(scratch).values())
            assert any("raylet" in name for name in names), names
        process.send_signal(number)
        time.sleep(1.0)
        if process.poll() is None:
            process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert started_in(scratch) == {}
        assert [path.name for path in (scratch / "t").iterdir() if path.name.startswith("fa-")] == []
        assert process.returncode in (128 + number, -number), output
    finally:
        for pid in started_in(scratch):
            os.kill(pid, signal.SIGKILL)
        process.kill()
