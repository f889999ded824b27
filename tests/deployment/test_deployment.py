"""Whole deployments on this machine: a server with TLS and keys, and devices as separate processes.

Each takes a minute or two: `make test-deployment`.
"""

import shutil
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fedaigc.deployment.agent.connection import CONNECTED, OTHER_AUTHORITY, TURNED_AWAY, connection
from fedaigc.deployment.processes import alive
from fedaigc.deployment.server.keys import AUTHORITY, make_device_key, make_server_keys
from fedaigc.deployment.server.roster_file import known_devices, nodes_online
from fedaigc.deployment.server.runs import run_on_devices
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.runtime.launcher import run_in_process
from tests.small_run import MakeRun, generation_of
from tools.deployment.running import deployment, pictures, wait_for

pytestmark = pytest.mark.slow


def test_devices_behind_tls_and_keys_end_where_the_simulation_ends(make_run: MakeRun, tmp_path: Path) -> None:
    config = make_run("devices", num_clients=3, seeded_noise=True)
    twin = config.model_copy(update={"homes": tmp_path / "twins", "output": tmp_path / "simulated"})
    shutil.copytree(config.homes, twin.homes)
    run_in_process(twin)
    with deployment(config, tmp_path / "server", 3) as devices:
        homes = [devices.start(client) for client in range(3)]
        pids = {devices.running[i].pid for i in range(3)}
        assert len(pids) == len(set(homes)) == 3
        run_on_devices(devices.folder, devices.state, config)
        # no process of Flower's ran the app package, and none but the agent has the home open
        nodes = [child for pid in pids for child in psutil.Process(pid).children(recursive=True)]
        assert not [p for p in nodes if "flwr-clientapp" in " ".join(p.cmdline())]
        assert not list((config.homes).glob("*/relay/flwr/apps/*"))
    ours, theirs = read_record(config.output), read_record(twin.output)
    assert ours.status == theirs.status == "finished"
    assert ours.clients == (0, 1, 2)
    assert [r.shared_hash for r in ours.rounds] == [r.shared_hash for r in theirs.rounds]

    def groups(record: RunRecord) -> list[Any]:
        return [
            (group.prompt, [(task.task_id, task.outcome) for task in group.tasks])
            for group in generation_of(record).groups
        ]

    assert groups(ours) == groups(theirs)
    assert pictures(config.homes) == pictures(twin.homes)
    assert not any(alive(pid) for pid in pids)


def test_strangers_stay_outside(make_run: MakeRun, tmp_path: Path) -> None:
    """A key that is not registered, another authority, and a device that tries to submit a run."""
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
        # what the owner of each device is told, by `fedaigc device status` and where the agent was started
        wait_for(lambda: connection(unknown) == TURNED_AWAY)
        wait_for(lambda: connection(misled) == OTHER_AUTHORITY)
        wait_for(lambda: connection(config.home(0)) == CONNECTED)
        wait_for(lambda: TURNED_AWAY in (devices.folder / "device1.log").read_text())
        assert superlink.read_text(errors="replace").count("Activated node_id=") == 1
        assert nodes_online(devices.folder, devices.state) == {known.node_id}
        door = f"https://127.0.0.1:{devices.state.port}"
        reply = httpx.post(f"{door}/v1/control/start-run", content=b"", verify=False)
        assert reply.status_code == 404
