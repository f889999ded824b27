"""A server and three devices in separate network namespaces, over slow links with delay and packet loss."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedaigc.deployment.agent.agent_socket import STATUS, AgentUnreachable, Request, ask_agent
from fedaigc.deployment.server.keys import AUTHORITY, make_device_key, make_server_keys
from fedaigc.deployment.server.server import server_state
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import run_in_process
from tests.small_run import MakeRun, generation_of
from tools.deployment.namespaces import ADDRESS, DEVICES, SERVER, device, inside, namespaces, possible

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not possible(), reason="needs root, ip and tc to make network namespaces"),
]
PORT = "9443"
# one way, of each device; it reaches the door through a relay that delays, at the port after the last one
DELAY_S = (0.01, 0.02, 0.04)
PROMPTS = (
    "an apple on a table",
    "a dog near a river",
    "a shiny lemon on a table",
    "a cat near a river",
    "a pear on a table",
    "a horse near a river",
)
TOML = """
homes = "{homes}"
output = "{output}"
num_clients = {clients}
seeded_noise = true
model = {{ name = "{model}", height = 32, width = 32 }}
adapter = {{ rank = 2 }}
rounds = {{ count = 3 }}
training = {{ local_steps = 2, personal_steps = 1, batch_size = 2, learning_rate = 1e-2 }}
generation = {{ num_inference_steps = 4, num_shared_steps = 2, scorer = "none" }}
"""


def cli(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fedaigc.cli.main", *map(str, arguments)]


def on_server(*arguments: object) -> str:
    """Run a command of fedaigc on the server's machine, and return its output."""
    done = subprocess.run(inside(SERVER, *cli(*arguments)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def status(home: Path) -> dict[str, Any]:
    try:
        return ask_agent(home, Request(STATUS), timeout_s=5).status or {}
    except AgentUnreachable:
        return {}


def namespace_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def test_three_devices_over_slow_links_end_where_the_simulation_ends(
    make_run: MakeRun, tmp_path: Path
) -> None:
    config = make_run("far", num_clients=DEVICES, prompts=PROMPTS, rounds={"count": 3})
    twin = config.model_copy(update={"homes": tmp_path / "twins", "output": tmp_path / "simulated"})
    shutil.copytree(config.homes, twin.homes)
    run_in_process(twin)
    folder = tmp_path / "server"
    toml = tmp_path / "run.toml"
    toml.write_text(
        TOML.format(homes=config.homes, output=config.output, clients=DEVICES, model=config.model.name)
    )
    make_server_keys(folder, [ADDRESS])
    devices: list[subprocess.Popen[bytes]] = []
    relays: list[subprocess.Popen[bytes]] = []
    with namespaces():
        on_server("server", "start", folder, "--host", ADDRESS, "--port", PORT)
        try:
            state = server_state(folder)
            assert state is not None
            for number in range(DEVICES):
                home = config.home(number)
                port = str(int(PORT) + 1 + number)
                delay = [sys.executable, "-m", "tools.deployment.delay", ADDRESS, port, ADDRESS, PORT]
                relays.append(subprocess.Popen(inside(SERVER, *delay, str(DELAY_S[number]))))
                key = make_device_key(home / "keys")
                on_server("server", "add", folder, key, "--name", f"device {number}")
                start = cli("device", "start", home, "--client", number)
                start += ["--server", f"{ADDRESS}:{port}", "--authority", str(folder / AUTHORITY)]
                start += ["--model", config.model.name, "--no-page"]
                start += ["--max-learning-rate", "0.01", "--max-passes", "10000"]
                with (tmp_path / f"device{number}.log").open("wb") as log:
                    process = subprocess.Popen(inside(device(number), *start), stdout=log, stderr=log)
                devices.append(process)
                wait_for(partial(status, home))
            agents = [int(status(config.home(number))["pid"]) for number in range(DEVICES)]
            spaces = {namespace_of(pid) for pid in [state.pid, *agents]}
            assert len(set(agents)) == DEVICES
            assert len(spaces) == DEVICES + 1
            assert namespace_of(os.getpid()) not in spaces
            on_server("server", "run", folder, toml)
        finally:
            for process in devices:
                process.terminate()
            for process in devices:
                process.wait(30)
            on_server("server", "stop", folder)
            for relay in relays:
                relay.kill()
                relay.wait()
    ours, theirs = read_record(config.output), read_record(twin.output)
    assert [r.shared_hash for r in ours.rounds] == [r.shared_hash for r in theirs.rounds]
    assert len(ours.rounds) == 3
    groups = [
        sorted((g.prompt, tuple(t.task_id for t in g.tasks)) for g in generation_of(r).groups)
        for r in (ours, theirs)
    ]
    assert groups[0] == groups[1]
    assert len([group for group in groups[0] if len(group[1]) > 1]) == 2
    assert sum(task.outcome == "shared" for task in ours.tasks) == len(PROMPTS)
    pictures = [
        {path.name: path.read_bytes() for path in homes.glob("*/gallery/*.png")}
        for homes in (config.homes, twin.homes)
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == len(PROMPTS)
