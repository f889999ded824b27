"""Whole deployments on this machine: a server with TLS and keys, devices as processes of their own.

Each takes a minute or two: `make test-deployment`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fedaigc.deployment.agent_socket import STATUS, AgentUnreachable, Request, ask_agent
from fedaigc.deployment.keys import AUTHORITY, make_device_key, make_server_keys
from fedaigc.deployment.processes import alive, free_port
from fedaigc.deployment.roster_file import known_devices, register_device
from fedaigc.deployment.runs import run_on_devices
from fedaigc.deployment.server import ServerState, start_server, stop_server
from fedaigc.federation.config import FederationConfig
from fedaigc.federation.launcher import run_in_process
from fedaigc.federation.record import read_record
from tests.federation.conftest import MakeRun

pytestmark = pytest.mark.slow


class Devices:
    """The processes of the devices of one server."""

    def __init__(self, folder: Path, state: ServerState, config: FederationConfig) -> None:
        self.folder, self.state, self.config = folder, state, config
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, partition: int, *, authority: Path | None = None) -> Path:
        """Start a device's agent, and return its home once it answers."""
        home = self.config.home(partition)
        command = [sys.executable, "-m", "fedaigc.cli", "device", "start", str(home)]
        command += ["--partition", str(partition), "--server", f"127.0.0.1:{self.state.port}"]
        command += ["--authority", str(authority or self.folder / AUTHORITY)]
        command += ["--model", self.config.model.name, "--no-page"]
        with (self.folder / f"device{partition}.log").open("ab") as log:
            self.running[partition] = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: answers(home))
        return home

    def stop(self) -> None:
        """End all of them."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(30)


def answers(home: Path) -> bool:
    try:
        return bool(ask_agent(home, Request(STATUS), timeout_s=5).status)
    except AgentUnreachable:
        return False


def wait_for(happened: Callable[[], Any], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def log_of(home: Path) -> str:
    path = home / "relay" / "supernode.log"
    return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def deployment(config: FederationConfig, folder: Path, registered: int) -> Iterator[Devices]:
    """A running server that knows the first `registered` devices."""
    make_server_keys(folder, ["127.0.0.1"])
    state = start_server(folder, "127.0.0.1", free_port())
    devices = Devices(folder, state, config)
    try:
        for partition in range(registered):
            key = make_device_key(config.home(partition) / "keys")
            register_device(folder, state, key, f"device {partition}", partition)
        yield devices
    finally:
        devices.stop()
        stop_server(folder)


def pictures(homes: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(homes.glob("*/gallery/*.png"))}


def test_devices_behind_tls_and_keys_end_where_the_simulation_ends(make_run: MakeRun, tmp_path: Path) -> None:
    config = make_run("devices", num_clients=3)
    twin = config.model_copy(update={"homes": tmp_path / "twins", "output": tmp_path / "simulated"})
    shutil.copytree(config.homes, twin.homes)
    run_in_process(twin)
    with deployment(config, tmp_path / "server", 3) as devices:
        homes = [devices.start(partition) for partition in range(3)]
        pids = {devices.running[i].pid for i in range(3)}
        assert len(pids) == len(set(homes)) == 3
        run_on_devices(devices.folder, devices.state, config)
        # no process of Flower's ran the app package, and none but the agent has the home open
        nodes = [child for pid in pids for child in psutil.Process(pid).children(recursive=True)]
        assert not [p for p in nodes if "flwr-clientapp" in " ".join(p.cmdline())]
        assert not list((config.homes).glob("*/relay/flwr/apps/*"))
    ours, theirs = read_record(config.output), read_record(twin.output)
    assert ours["status"] == theirs["status"] == "finished"
    assert ours["partitions"] == [0, 1, 2]
    assert [r["shared_hash"] for r in ours["rounds"]] == [r["shared_hash"] for r in theirs["rounds"]]

    def groups(record: dict[str, Any]) -> list[Any]:
        return [
            (group["prompt"], [(task["task_id"], task["outcome"]) for task in group["tasks"]])
            for group in record["generation"]["groups"]
        ]

    assert groups(ours) == groups(theirs)
    assert pictures(config.homes) == pictures(twin.homes)
    assert not any(alive(pid) for pid in pids)


def test_strangers_stay_outside(make_run: MakeRun, tmp_path: Path) -> None:
    """A key that was not registered, another authority, and a device that would submit a run."""
    config = make_run("strangers", num_clients=3)
    with deployment(config, tmp_path / "server", 1) as devices:
        (known,) = known_devices(devices.folder)
        make_device_key(config.home(1) / "keys")
        make_device_key(config.home(2) / "keys")
        make_server_keys(tmp_path / "other", ["127.0.0.1"])
        devices.start(0)
        unknown = devices.start(1)
        misled = devices.start(2, authority=tmp_path / "other" / AUTHORITY)
        superlink = devices.folder / "flower" / "superlink.log"
        wait_for(lambda: f"Activated node_id={known.node_id}" in superlink.read_text(errors="replace"))
        wait_for(lambda: "error" in log_of(unknown).lower() or "denied" in log_of(unknown).lower())
        wait_for(lambda: "certificate" in log_of(misled).lower())
        assert superlink.read_text(errors="replace").count("Activated node_id=") == 1
        door = f"https://127.0.0.1:{devices.state.port}"
        reply = httpx.post(f"{door}/v1/control/start-run", content=b"", verify=False)
        assert reply.status_code == 404


def test_a_device_that_dies_in_a_round_costs_its_update_only(make_run: MakeRun, tmp_path: Path) -> None:
    """SIGKILL of an agent and of all that it started; started again, it has lost nothing and goes on."""
    config = make_run("dies", num_clients=2, rounds={"count": 8, "deadline_s": 20.0})
    with deployment(config, tmp_path / "server", 2) as devices:
        homes = [devices.start(partition) for partition in range(2)]
        queued = len(list((homes[1] / "prompts").glob("*.json")))
        command = [sys.executable, "-c", RUN, str(devices.folder), str(tmp_path / "run.json")]
        (tmp_path / "run.json").write_text(config.model_dump_json())
        running = subprocess.Popen(command)
        wait_for(lambda: rounds_done(config) >= 1)
        os.kill(devices.running[1].pid, signal.SIGKILL)
        devices.running[1].wait()
        devices.start(1)
        assert running.wait(500) == 0
        record = read_record(config.output)
        assert record["status"] == "finished"
        assert len(record["rounds"]) == 8
        assert record["rounds"][-1]["num_examples"].keys() >= {"0"}
        # its prompts are all there, each answered once or still waiting
        assert len(list((homes[1] / "prompts").glob("*.json"))) == queued
        outcomes = [t["outcome"] for g in record["generation"]["groups"] for t in g["tasks"]]
        assert "failed" not in outcomes


def test_a_device_that_is_gone_for_two_rounds_returns(make_run: MakeRun, tmp_path: Path) -> None:
    """It joins the rounds after its return, and trains none of those that ended without it.

    The one whose order it held when it went may be finished late: nobody waits for that.
    """
    config = make_run("gone", num_clients=2, prompts=(), rounds={"count": 9, "deadline_s": 10.0})
    with deployment(config, tmp_path / "server", 2) as devices:
        homes = [devices.start(partition) for partition in range(2)]
        (tmp_path / "run.json").write_text(config.model_dump_json())
        running = subprocess.Popen(
            [sys.executable, "-c", RUN, str(devices.folder), str(tmp_path / "run.json")]
        )
        wait_for(lambda: rounds_done(config) >= 1)
        agent = psutil.Process(devices.running[1].pid)
        away = [agent, *agent.children(recursive=True)]
        for process in away:
            process.suspend()
        before = rounds_done(config)
        wait_for(lambda: rounds_done(config) >= before + 3)
        for process in away:
            process.resume()
        assert running.wait(500) == 0
        rounds = read_record(config.output)["rounds"]
        assert len(rounds) == 9
        missed = {entry["round"] for entry in rounds if "1" not in entry["num_examples"]}
        assert len(missed) >= 2
        assert all("0" in entry["num_examples"] for entry in rounds)
        assert "1" in rounds[-1]["num_examples"]
        kept = {int(path.name) for path in (homes[1] / "adapters" / "rounds").glob("*/[0-9]*")}
        assert len(kept & missed) <= 1
        assert 9 in kept


RUN = """
import sys
from pathlib import Path
from fedaigc.deployment.runs import run_on_devices
from fedaigc.deployment.server import server_state
from fedaigc.federation.config import FederationConfig
folder = Path(sys.argv[1])
config = FederationConfig.model_validate_json(Path(sys.argv[2]).read_text())
run_on_devices(folder, server_state(folder), config)
"""


def rounds_done(config: FederationConfig) -> int:
    try:
        return len(json.loads((config.output / "record.json").read_text())["rounds"])
    except (OSError, ValueError, KeyError):
        return 0
