"""The files in which a server keeps its devices and its own process: what is damaged is named."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from fedaigc.deployment.processes import birth
from fedaigc.deployment.server.roster_file import DEVICES, KnownDevice, known_devices, register_device
from fedaigc.deployment.server.server import STATE, ServerState, server_state
from fedaigc.errors import DamagedFile, UserError

RUNNING = ServerState(os.getpid(), birth(os.getpid()), "0.0.0.0", 9443, "127.0.0.1:1", True)


def test_devices_are_read_by_client(tmp_path: Path) -> None:
    assert known_devices(tmp_path) == []
    devices = [KnownDevice("b", 1, 2**63), KnownDevice("a", 0, 7)]
    (tmp_path / DEVICES).write_text(json.dumps([asdict(device) for device in devices]))
    assert known_devices(tmp_path) == devices[::-1]


@pytest.mark.parametrize("change", [{"client": "1"}, {"node_id": True}, {"name": 5}, {"more": 1}])
def test_a_list_of_other_types_is_damaged(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / DEVICES).write_text(json.dumps([asdict(KnownDevice("a", 0, 7)) | change]))
    with pytest.raises(DamagedFile, match=r"devices\.json is damaged: restore it"):
        known_devices(tmp_path)


def test_a_state_of_other_types_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / STATE
    assert server_state(tmp_path) is None
    path.write_text(json.dumps(asdict(RUNNING)))
    assert server_state(tmp_path) == RUNNING
    for damaged in ("{", "[]", json.dumps(asdict(RUNNING) | {"pid": "1"})):
        path.write_text(damaged)
        with pytest.raises(DamagedFile, match=r"server\.json is damaged: remove it"):
            server_state(tmp_path)


@pytest.mark.parametrize("name", ["phone \udcff", "two\nlines", "\x1b[31m"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="choose another name"):
        register_device(tmp_path, RUNNING, tmp_path / "device.key.pub", name)
    assert not (tmp_path / DEVICES).exists()
