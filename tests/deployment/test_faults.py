"""Faults in real processes, with the outcome of each.

Part of `make test-deployment`.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fedaigc.deployment.agent.agent_socket import STATUS, Request, ask_agent
from fedaigc.deployment.server.server import start_server
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import read_record, read_services
from fedaigc.federation.runtime.launcher import run_in_process
from tests.small_run import MakeRun, generation_of
from tools.deployment.rogue import LARGE_BYTES
from tools.deployment.running import deployment, family, rounds_done, start_run, wait_for

pytestmark = pytest.mark.slow
MB = 1_000_000


def statuses(home: Path) -> list[TaskStatus]:
    return [task.status for task in PromptQueue(Home.open(home)).all()]


def orders_worth(server: Path) -> float:
    """Return the size of the messages in the SuperLink, as a multiple of the largest part of one, the weights."""
    with contextlib.closing(sqlite3.connect(f"file:{server / 'superlink.db'}?mode=ro", uri=True)) as database:
        total, largest = database.execute(
            "SELECT SUM(LENGTH(content)), MAX(LENGTH(content)) FROM objects"
        ).fetchone()
    return total / largest if largest else 0.0


def answers_by_task(config: FederationConfig) -> Counter[str]:
    """Return how often each task was answered, according to the server's records of generations."""
    tasks = [task for each in read_services(config.output) for task in each.tasks]
    return Counter(task.task_id for task in tasks if task.outcome != "failed")


def personal_files(homes: Path) -> dict[str, bytes]:
    """Return the personal adapters and the strategy's memory of every device and every round that is kept."""
    found = homes.glob("*/adapters/rounds/*/*.safetensors")
    # without the identity of the run
    return {
        re.sub(r"\.[0-9a-f]{16}/", "/", str(path.relative_to(homes))): path.read_bytes() for path in found
    }


def test_a_device_that_dies_in_a_round_costs_its_update_only(make_run: MakeRun, tmp_path: Path) -> None:
    """After SIGKILL of an agent and its children, the restarted agent has lost nothing and continues."""
    config = make_run("dies", num_clients=2, rounds={"count": 8, "deadline_s": 20.0})
    with deployment(config, tmp_path / "server", 2) as devices:
        homes = [devices.start(client) for client in range(2)]
        queued = len(list((homes[1] / "prompts").glob("*.json")))
        running = start_run(devices, config)
        wait_for(lambda: rounds_done(config) >= 1)
        devices.kill(1)
        devices.start(1)
        assert running.wait(500) == 0
        record = read_record(config.output)
        assert record.status == "finished"
        assert len(record.rounds) == 8
        assert record.rounds[-1].num_examples.keys() >= {0}
        # its prompts are all there, each answered once or still waiting
        assert len(list((homes[1] / "prompts").glob("*.json"))) == queued
        outcomes = [t.outcome for g in generation_of(record).groups for t in g.tasks]
        assert "failed" not in outcomes


def test_a_device_that_is_gone_for_two_rounds_returns(make_run: MakeRun, tmp_path: Path) -> None:
    """The device joins the rounds after its return, and trains none of those that ended without it.

    It may still finish the round whose order it held when it was suspended, for which nobody waits. The server keeps
    none of the orders that the device did not fetch. Its reply would be the first in client order, and yet the
    other device's update is used in every round.
    """
    config = make_run("gone", num_clients=2, prompts=(), rounds={"count": 9, "deadline_s": 10.0})
    with deployment(config, tmp_path / "server", 2) as devices:
        homes = [devices.start(client) for client in range(2)]
        running = start_run(devices, config)
        wait_for(lambda: rounds_done(config) >= 1)
        away = family(devices.running[0].pid)
        for process in away:
            process.suspend()
        before = rounds_done(config)
        wait_for(lambda: rounds_done(config) >= before + 3)
        # three orders were never taken; at times there is but the one of the round that runs, or none
        wait_for(lambda: orders_worth(devices.folder) < 1.5, 20.0)
        for process in away:
            process.resume()
        assert running.wait(500) == 0
        rounds = read_record(config.output).rounds
        assert len(rounds) == 9
        missed = {entry.round for entry in rounds if 0 not in entry.num_examples}
        assert len(missed) >= 2
        assert all(1 in entry.num_examples for entry in rounds)
        assert 0 in rounds[-1].num_examples
        kept = {int(path.stem) for path in (homes[0] / "adapters" / "rounds").glob("*/[0-9]*")}
        assert len(kept & missed) <= 1
        assert 9 in kept


def test_a_supernode_that_dies_is_started_again(make_run: MakeRun, tmp_path: Path) -> None:
    """The device only misses rounds: the agent is not affected, and its relay starts another SuperNode."""
    config = make_run("node", num_clients=2, prompts=(), rounds={"count": 12, "deadline_s": 15.0})
    with deployment(config, tmp_path / "server", 2) as devices:
        for client in range(2):
            devices.start(client)
        running = start_run(devices, config)
        wait_for(lambda: rounds_done(config) >= 1)
        agent = devices.running[1].pid
        (node,) = supernodes(agent)
        node.kill()
        wait_for(lambda: [process for process in supernodes(agent) if process != node])
        assert running.wait(500) == 0
        assert devices.running[1].poll() is None
        rounds = read_record(config.output).rounds
        assert len(rounds) == 12
        assert all(0 in entry.num_examples for entry in rounds)
        assert 1 in rounds[-1].num_examples


def supernodes(agent: int) -> list[psutil.Process]:
    """Return the running SuperNodes of a device."""
    found = []
    for process in family(agent):
        with contextlib.suppress(psutil.Error):
            if any("flower-supernode" in part for part in process.cmdline()):
                found.append(process)
    return found


def test_a_helper_that_dies_within_the_shared_steps_costs_the_sharing(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """The other members of its group are served alone, and its own prompt is served when it returns."""
    config = make_run(
        "helper",
        num_clients=3,
        prompts=("an apple on a table", "a pear on a table", "a shiny apple on a table"),
        rounds={"count": 1},
        generation={
            "num_inference_steps": 900,
            "num_shared_steps": 390,
            "executor": "member",
            "max_distance": 3,
            "scorer": "none",
            "deadline_s": 60.0,
            "serve_s": 90.0,
        },
    )
    homes = [config.home(client) for client in range(3)]
    with deployment(config, tmp_path / "server", 3) as devices:
        for client in range(3):
            devices.start(client)
        running = start_run(devices, config)
        wait_for(lambda: rounds_done(config) == 1)
        helper = busy_for_long(homes)
        devices.kill(helper)
        assert not list((homes[helper] / "gallery").glob("*.png"))
        devices.start(helper)
        assert running.wait(500) == 0
        first = read_services(config.output)[0]
        (group,) = [group for group in first.groups if len(group.tasks) == 3]
        assert group.share_failure in ("late", "unreachable")
        outcomes = {task.client: task.outcome for task in group.tasks}
        assert all(outcomes[client] == "alone" for client in range(3) if client != helper)
        assert [statuses(home) for home in homes] == [[TaskStatus.FINISHED]] * 3
        assert sorted(answers_by_task(config).values()) == [1, 1, 1]


def busy_for_long(homes: list[Path]) -> int:
    """Return the device that works on one message for a while: it runs the shared steps, and the others wait."""
    in_a_row: Counter[int] = Counter()

    def found() -> bool:
        for number, home in enumerate(homes):
            status = ask_agent(home, Request(STATUS), timeout_s=5).status or {}
            in_a_row[number] = in_a_row[number] + 1 if status["busy"] else 0
        return max(in_a_row.values()) >= 4

    wait_for(found)
    return in_a_row.most_common(1)[0][0]


def test_a_server_that_dies_in_a_round_resumes_to_the_same_end(make_run: MakeRun, tmp_path: Path) -> None:
    """After SIGKILL of the server, its children end, and `--resume` continues after the last complete round.

    Weights, personal adapters and pictures equal those of an uninterrupted simulation bit for bit, since no device
    trains a round twice.
    """
    config = make_run("killed", num_clients=2, rounds={"count": 6}, seeded_noise=True)
    twin = config.model_copy(update={"homes": tmp_path / "twins", "output": tmp_path / "simulated"})
    shutil.copytree(config.homes, twin.homes)
    run_in_process(twin)
    with deployment(config, tmp_path / "server", 2) as devices:
        for client in range(2):
            devices.start(client)
        running = start_run(devices, config)
        wait_for(lambda: rounds_done(config) >= 2)
        of_server = family(devices.state.pid)
        of_server[0].kill()
        assert running.wait(120) != 0
        wait_for(lambda: not [p for p in of_server if p.is_running() and p.status() != psutil.STATUS_ZOMBIE])
        held = rounds_done(config)
        assert 2 <= held < 6
        devices.state = start_server(devices.folder, "127.0.0.1", devices.state.port)
        assert start_run(devices, config.model_copy(update={"resume": True})).wait(500) == 0
    ours, theirs = read_record(config.output), read_record(twin.output)
    assert [r.shared_hash for r in ours.rounds] == [r.shared_hash for r in theirs.rounds]
    assert ours.status == "finished"
    assert personal_files(config.homes) == personal_files(twin.homes)
    drawn = [
        {p.name: p.read_bytes() for p in homes.glob("*/gallery/*.png")}
        for homes in (config.homes, twin.homes)
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4


def can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """Mount a file system of the given size over a folder, with the content of the folder."""
    kept = folder.with_name(f"{folder.name}.kept")
    folder.rename(kept)
    folder.mkdir(mode=0o700)
    options = f"size={size_mb}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(not can_mount(), reason="needs root and mount to make a small disk")
def test_a_full_disk_costs_updates_and_loses_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    """A device without free space refuses rounds with its kind of failure, and continues when it has space again."""
    config = make_run("full", num_clients=2, rounds={"count": 12, "deadline_s": 20.0})
    homes = [config.home(client) for client in range(2)]
    with small_disk(homes[1], 40), deployment(config, tmp_path / "server", 2) as devices:
        for client in range(2):
            devices.start(client)
        running = start_run(devices, config)
        wait_for(lambda: rounds_done(config) >= 2)
        fill(homes[1] / "ballast")
        before = rounds_done(config)
        wait_for(lambda: rounds_done(config) >= before + 3)
        (homes[1] / "ballast").unlink()
        assert running.wait(500) == 0
        record = read_record(config.output)
        reasons = [entry.refused.get(1, "") for entry in record.rounds]
        assert any("disk_full" in reason for reason in reasons), reasons
        assert 1 in record.rounds[-1].num_examples
        assert all(0 in entry.num_examples for entry in record.rounds)
        assert statuses(homes[1]) == [TaskStatus.FINISHED] * 2
        outcomes = [task.outcome for group in generation_of(record).groups for task in group.tasks]
        assert "failed" not in outcomes


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass


def test_devices_that_keep_to_no_rule_cost_their_own_updates(make_run: MakeRun, tmp_path: Path) -> None:
    """NaN, a wrong rank, 200 MB, another client's number, damaged packets: each from a registered device.

    Each is refused under its client's number, the rounds continue with the other clients, members of a group whose
    helper sends a damaged packet draw alone, and the server's memory does not grow.
    """
    config = make_run(
        "rogues",
        num_clients=6,
        prompts=("a dog near a river", "a cat near a river", "an apple on a table", "a pear on a table"),
        rounds={"count": 4, "deadline_s": 60.0},
        generation={
            "num_inference_steps": 4,
            "num_shared_steps": 2,
            "executor": "member",
            "max_distance": 3,
            "scorer": "none",
            "deadline_s": 60.0,
        },
    )
    ways = {2: "nan", 3: "rank", 4: "large", 5: "another's update", 1: "another's name"}
    with deployment(config, tmp_path / "server", 6) as devices:
        for client in range(6):
            devices.start(client, rogue=ways.get(client, ""))
        running = start_run(devices, config)
        peaks: dict[int, int] = {}
        while running.poll() is None:
            held = sum(resident(process) for process in family(devices.state.pid))
            peaks[rounds_done(config)] = max(peaks.get(rounds_done(config), 0), held)
            time.sleep(0.1)
        assert running.returncode == 0
    record = read_record(config.output)
    print({done: f"{peak / MB:.0f} MB" for done, peak in peaks.items()})
    assert [entry.client for entry in record.refused] == [None]
    assert "not bound to this node" in record.refused[0].reason
    assert len(record.rounds) == 4
    for entry in record.rounds:
        assert list(entry.num_examples) == [0]
        reasons = entry.refused
        assert "finite" in reasons[2]
        assert "client 3" in reasons[3]
        assert "client 4" in reasons[4]
        assert "claims to come from client 0" in reasons[5]
    # as much in the last round as in the first: nothing of a refused update is kept
    assert peaks[3] < peaks[0] + LARGE_BYTES
    outcomes = {
        task.client: (task.outcome, group.share_failure)
        for group in generation_of(record).groups
        for task in group.tasks
    }
    assert outcomes[2] == outcomes[3] == ("alone", "packet_refused")


def resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
