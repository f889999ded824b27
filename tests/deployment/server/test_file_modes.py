"""Files that a server, its devices and their runs write are private to their users, whatever the umask.

At b8a6c4d, the server's folder, its logs, the list of devices, Flower's files and the records of runs (which
contain signatures by client) had mode 0644 in folders of mode 0755.
"""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedaigc.deployment.server.runs import run_on_devices
from fedaigc.federation.runtime.launcher import simulate
from tests.small_run import MakeRun
from tools.deployment.running import deployment, wait_for

# certificates and public keys are made to be given out
PUBLIC = {"authority.pem", "server.pem", "device.key.pub"}


@pytest.fixture(autouse=True)
def careless_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(*roots: Path) -> list[str]:
    """Return every file and folder below the roots, and the roots, that other users can access."""
    found = []
    for root in roots:
        for path in (root, *root.rglob("*")):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & 0o077 and path.name not in PUBLIC:
                found.append(f"{stat.filemode(mode)} {path.relative_to(root.parent)}")
    return found


def test_a_simulation_writes_for_its_user_alone(make_run: MakeRun) -> None:
    config = make_run("private", num_clients=2)
    simulate(config)
    assert (config.output / "record.json").exists()
    assert open_to_others(config.output, config.homes) == []
    # what the process had set holds again
    assert os.umask(0o022) == 0o022


def test_a_folder_that_was_there_keeps_its_mode_and_its_files(make_run: MakeRun) -> None:
    config = make_run("given", num_clients=2)
    config.output.mkdir(parents=True)
    config.output.chmod(0o755)
    own = config.output / "notes.txt"
    own.write_text("mine")
    # of an earlier version, which goes on to be written
    (config.output / "generations.jsonl").write_text("")
    simulate(config)
    found = open_to_others(config.output)
    assert found == [f"drwxr-xr-x {config.output.name}", f"-rw-r--r-- {config.output.name}/notes.txt"]


def test_commands_write_for_their_user_alone(tmp_path: Path) -> None:
    for arguments in (["keys", "server", "server", "--host", "a.example"], ["keys", "device", "home"]):
        command = [sys.executable, "-m", "fedaigc.cli.main", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert open_to_others(tmp_path / "server", tmp_path / "home") == []


@pytest.mark.slow
def test_a_simulation_with_workers_writes_for_its_user_alone(make_run: MakeRun) -> None:
    config = make_run("workers", num_clients=2, backend="ray", workers=1)
    simulate(config)
    assert (config.output / "flower.log").exists()
    assert open_to_others(config.output, config.homes) == []


@pytest.mark.slow
def test_a_deployment_writes_for_its_users_alone(make_run: MakeRun, tmp_path: Path) -> None:
    config = make_run("deployed", num_clients=2)
    folder = tmp_path / "server"
    with deployment(config, folder, 2) as devices:
        for client in range(2):
            devices.start(client)
        run_on_devices(devices.folder, devices.state, config)
        wait_for(lambda: (config.output / "record.json").exists())
        # what the tests open for the devices' words is no part of a deployment
        for log in folder.glob("device?.log"):
            log.chmod(0o600)
        # while it runs: the database's own files, Flower's folders, sockets
        assert open_to_others(folder, config.output, config.homes) == []
    assert open_to_others(folder, config.output, config.homes) == []
