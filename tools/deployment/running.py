"""A server and its devices as separate processes of this machine."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from fedaigc.deployment.agent.agent_socket import STATUS, AgentUnreachable, Request, ask_agent
from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server.keys import AUTHORITY, make_device_key, make_server_keys
from fedaigc.deployment.server.roster_file import register_device
from fedaigc.deployment.server.server import ServerState, start_server, stop_server
from fedaigc.federation.config.run_config import FederationConfig

RUN = """
import signal
import sys
from pathlib import Path
from fedaigc.deployment.server.runs import run_on_devices
from fedaigc.deployment.server.server import server_state
from fedaigc.federation.config.run_config import FederationConfig
# a shell that starts tests in the background has SIGINT ignored, and children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
config = FederationConfig.model_validate_json(Path(sys.argv[2]).read_text())
run_on_devices(folder, server_state(folder), config)
"""
_STOP_TIMEOUT_S = 600.0


class Devices:
    """The processes of the devices of one server."""

    def __init__(self, folder: Path, state: ServerState, config: FederationConfig) -> None:
        self.folder, self.state, self.config = folder, state, config
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, client: int, *, authority: Path | None = None, rogue: str = "") -> Path:
        """Start a device's agent and return its home once the agent answers.

        Args:
            client: The client number of the device.
            authority: The certificate authority that the device trusts. None selects the server's.
            rogue: A key of `rogue.WAYS`. "" starts an honest device.
        """
        home = self.begin(client, authority=authority, rogue=rogue)
        wait_for(lambda: answers(home))
        return home

    def begin(
        self,
        client: int,
        *,
        authority: Path | None = None,
        rogue: str = "",
        rogues: str = "tools.deployment.rogue",
        options: Sequence[str] = (),
    ) -> Path:
        """Start a device's agent without waiting for it, and return its home.

        The arguments are those of `start`. `rogues` is the module that defines `rogue`, `options` are further ones of
        `fedaigc device start`.
        """
        home = self.config.home(client)
        module = [rogues, rogue] if rogue else ["fedaigc.cli.main"]
        command = [sys.executable, "-m", *module, "device", "start", str(home)]
        command += ["--client", str(client), "--server", f"127.0.0.1:{self.state.port}"]
        command += ["--authority", str(authority or self.folder / AUTHORITY)]
        command += ["--model", self.config.model.name, "--no-page"]
        # the small model uses ten times the default learning rate, and homes have few pictures
        command += ["--max-learning-rate", "0.01", "--max-passes", "10000", "--max-steps", "900"]
        command += options
        with (self.folder / f"device{client}.log").open("ab") as log:
            self.running[client] = subprocess.Popen(command, stdout=log, stderr=log)
        return home

    def kill(self, client: int) -> None:
        """Kill a device's agent with SIGKILL, which also ends the processes that it started."""
        self.running[client].kill()
        self.running[client].wait()

    def stop(self) -> None:
        """Terminate the agents of all devices."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            # on a busy machine an agent takes minutes to end what it started
            process.wait(_STOP_TIMEOUT_S)


def answers(home: Path) -> bool:
    try:
        return bool(ask_agent(home, Request(STATUS), timeout_s=5).status)
    except AgentUnreachable:
        return False


def wait_for(happened: Callable[[], Any], timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


@contextmanager
def deployment(config: FederationConfig, folder: Path, registered: int) -> Iterator[Devices]:
    """Run a server with the first `registered` devices registered, within the context."""
    make_server_keys(folder, ["127.0.0.1"])
    state = start_server(folder, "127.0.0.1", free_port())
    devices = Devices(folder, state, config)
    try:
        for client in range(registered):
            key = make_device_key(config.home(client) / "keys")
            register_device(folder, state, key, f"device {client}", client)
        yield devices
    finally:
        try:
            devices.stop()
        finally:
            stop_server(folder)


def start_run(devices: Devices, config: FederationConfig) -> "subprocess.Popen[bytes]":
    """Start a run as `fedaigc server run` does, in a separate process."""
    path = devices.folder / "run.json"
    path.write_text(config.model_dump_json())
    return subprocess.Popen([sys.executable, "-c", RUN, str(devices.folder), str(path)])


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def rounds_done(config: FederationConfig) -> int:
    try:
        return len(json.loads((config.output / "record.json").read_text())["rounds"])
    except (OSError, ValueError, KeyError):
        return 0


def pictures(homes: Path) -> dict[str, bytes]:
    """Return every picture in the galleries of these homes, by file name."""
    return {path.name: path.read_bytes() for path in sorted(homes.glob("*/gallery/*.png"))}
