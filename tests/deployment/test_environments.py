"""A server and devices where the environment names proxies, and where a clock is off.

Part of `make test-deployment`.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.deployment.agent.connection import CONNECTED, connection
from fedaigc.deployment.processes import free_port, stopped
from fedaigc.deployment.server.keys import AUTHORITY, make_device_key, make_server_keys
from fedaigc.deployment.server.roster_file import register_device
from fedaigc.deployment.server.server import start_server, stop_server
from tests.federation.runtime.surroundings import hiding_folder, hostile_environment, inherited
from tests.small_run import MakeRun
from tools.deployment.running import wait_for

pytestmark = pytest.mark.slow
# Flower's clock, ahead by some seconds in every process that finds this file
AHEAD = """
import datetime
with __import__("contextlib").suppress(Exception):
    import flwr.supercore.date as date
    before = date.now
    date.now = lambda: before() + datetime.timedelta(seconds=8)
"""


@contextlib.contextmanager
def tunnel(port: int, asked: list[str]) -> Iterator[int]:
    """A proxy that leads every CONNECT to a port of this machine, and notes what was asked for."""

    def passed_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(4096)
                asked.append(request.split(b"\r\n")[0].decode())
                behind = socket.create_connection(("127.0.0.1", port))
                client.sendall(b"HTTP/1.1 200 connected\r\n\r\n")
                for pair in ((client, behind), (behind, client)):
                    threading.Thread(target=passed_on, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def test_proxies_and_clocks(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Device 0 reaches the server through a proxy, device 1 directly with a clock that is 8 s ahead."""
    config = make_run("run", num_clients=2)
    folder, port = tmp_path / "server", free_port()
    hostile = hostile_environment(tmp_path)
    del hostile["HOME"]  # where Chromium and others of this machine may look
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(hiding_folder(tmp_path))
    make_server_keys(folder, ["server.example", "127.0.0.1"])
    state = start_server(folder, "127.0.0.1", port)
    running: list[subprocess.Popen[bytes]] = []
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(AHEAD)
    root = str(Path(__file__).parents[2])
    asked: list[str] = []
    try:
        with tunnel(port, asked) as proxy:
            for client in range(2):
                key = make_device_key(config.home(client) / "keys")
                register_device(folder, state, key, f"device {client}", client)
                host = ("server.example", "127.0.0.1")[client]
                command = [
                    sys.executable,
                    "-P",
                    "-m",
                    "fedaigc.cli.main",
                    "device",
                    "start",
                    str(config.home(client)),
                ]
                command += ["--client", str(client), "--server", f"{host}:{port}", "--no-page"]
                command += ["--authority", str(folder / AUTHORITY), "--model", config.model.name]
                paths = [root, *([str(tmp_path / "site")] if client else [])]
                environment = inherited(
                    {
                        "PYTHONPATH": os.pathsep.join(paths),
                        "HTTPS_PROXY": f"http://anna:secret@127.0.0.1:{proxy}",
                    },
                    without=("ALL_PROXY",) if client == 0 else (),
                )
                with (tmp_path / f"device{client}.log").open("wb") as log:
                    running.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
            wait_for(lambda: CONNECTED in (connection(config.home(0)) or ""))
            wait_for(lambda: "8.0 s ahead" in (connection(config.home(1)) or ""))
            assert connection(config.home(0)) == f"{CONNECTED} (through the proxy http://127.0.0.1:{proxy})"
            said = CliRunner().invoke(app, ["server", "status", str(folder)]).output
    finally:
        for process in running:
            stopped(process)
        stop_server(folder)
    assert set(asked) == {f"CONNECT server.example:{port} HTTP/1.1"}
    assert "client 0: device 0" in said
    assert "offline, refused: its clock is 8.0 s ahead of that of this server" in said
    logs = [(tmp_path / f"device{client}.log").read_text() for client in range(2)]
    assert f"reached through the proxy http://127.0.0.1:{proxy}, which the environment names" in logs[0]
    assert "secret" not in logs[0]
    assert "the clock of this device is 8.0 s ahead of that of the server" in logs[1]
    assert "proxy" not in logs[1]
