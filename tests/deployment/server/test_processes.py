"""Processes and their logs: identity, log size, and waiting for a port."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedaigc.deployment.processes import MAX_LOG_BYTES, alive, birth, free_port, keep_short, wait_for_port
from fedaigc.errors import UserError


def test_a_process_is_known_by_its_number_and_its_birth() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = birth(process.pid)
        assert alive(process.pid)
        assert alive(process.pid, began)
        assert not alive(process.pid, began + 1)
        process.communicate(b"\n")
    assert not alive(process.pid)
    assert alive(os.getpid(), birth(os.getpid()))


def test_a_log_begins_anew_while_its_writer_has_it_open(tmp_path: Path) -> None:
    log = tmp_path / "relay.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * MAX_LOG_BYTES)
        keep_short(log)
        assert log.stat().st_size == MAX_LOG_BYTES
        writer.write(b"y")
        keep_short(log)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "relay.old.log").read_bytes().endswith(b"xy")
    keep_short(tmp_path / "none.log")


def test_a_port_is_waited_for_while_its_process_lives_and_no_longer_than_is_said() -> None:
    port = free_port()
    late = f"import socket, time; time.sleep(0.5); s = socket.create_server(('127.0.0.1', {port})); input()"
    with subprocess.Popen([sys.executable, "-c", late], stdin=subprocess.PIPE) as process:
        with pytest.raises(UserError, match="after 0 s"):
            wait_for_port(port, process, timeout_s=0.2)
        wait_for_port(port, process)
        socket.create_connection(("127.0.0.1", port)).close()
        process.communicate(b"\n")
    began = time.monotonic()
    wait_for_port(port, process)
    assert time.monotonic() - began < 5
