"""Seconds until the other devices go on when one is killed, without a server or an edge; prints JSON.

    python -m experiments.killed.measure pair --record experiments/records/killed/pair.json
    python -m experiments.killed.measure cluster --record experiments/records/killed/cluster.json

Devices are processes of one machine with TLS between them: two that are paired, and a cluster of four whose prompts are
one group. One is killed by SIGKILL just before it sends a message, once for each message of the protocol. Counted are
the seconds from then until the last of the others begins to draw its picture, from the packet or alone. The waits are
the defaults of the commands. All processes share this machine, which makes them slower than devices of their own.
"""

import argparse
import json
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.planner.output import write
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.deployment.cluster.member import Member
from fedaigc.deployment.peer.connections import calling, listen
from fedaigc.deployment.peer.frames import Frames
from fedaigc.deployment.peer.paired import Peers
from fedaigc.deployment.peer.sharing import Outcome, Sharer, Terms
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.federation.preloaded import base_model

PROMPTS = ("a dog near a river", "a cat near a river", "a horse near a river", "a sheep near a river")
STEPS, SHARED = 11, 3
PACKET = "FAGS"
_LONGEST_S = 900.0


@dataclass(frozen=True)
class Case:
    """One device that is killed.

    Attributes:
        topology: "pair", whose device 0 calls device 1, or "cluster".
        executor: The device that runs the shared steps.
        killed: The device that is killed.
        before: How the message begins before which it is killed.
        nth: Before the how manieth such message.
    """

    topology: str
    executor: int
    killed: int
    before: str
    nth: int = 1


CASES = (
    Case("pair", 0, 1, '["match"'),
    Case("pair", 0, 0, '["agreed"'),
    Case("pair", 0, 0, PACKET),
    Case("pair", 1, 1, PACKET),
    Case("pair", 0, 1, '["received"'),
    Case("cluster", 1, 1, '["offered"'),
    Case("cluster", 1, 1, '["commit"'),
    Case("cluster", 1, 1, PACKET),
    Case("cluster", 1, 1, PACKET, 3),
    Case("cluster", 1, 2, '["offered"'),
    Case("cluster", 1, 2, '["commit"'),
    Case("cluster", 1, 2, '["decided"'),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("topology", choices=["pair", "cluster"])
    parser.add_argument("--times", type=int, default=5, help="how often each device is killed")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    # all processes are forks that have it
    base_model(model())
    rows = []
    for case in (case for case in CASES if case.topology == options.topology):
        seconds, shared = [], 0
        for _ in range(options.times):
            with tempfile.TemporaryDirectory() as folder:
                after, own = killed(Path(folder), case)
            seconds.append(round(after, 2))
            shared += own
        rows.append({**case.__dict__, "seconds": seconds, "shared": shared})
        print(json.dumps(rows[-1]), flush=True)
    record = {
        "what": f"seconds until other devices go on: {options.topology}",
        "times": options.times,
        "cases": rows,
    }
    write(record, options.record)


def model() -> ModelSection:
    return ModelSection()


def killed(folder: Path, case: Case) -> tuple[float, int]:
    """Let devices share while one is killed.

    Returns:
        Seconds until the last of the others began to draw, and how many of these finished a shared packet.

    Raises:
        RuntimeError: If one of the others did not draw its prompt once, or the one that was to be killed ended.
    """
    homes = _homes(folder, 2 if case.topology == "pair" else len(PROMPTS))
    fork = multiprocessing.get_context("fork")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in homes]
        addresses = {
            home.name: f"127.0.0.1:{listening.getsockname()[1]}"
            for home, listening in zip(homes, sockets, strict=True)
        }
        run = _pair if case.topology == "pair" else _cluster
        processes = [
            fork.Process(target=_side, args=(folder, case, number, homes, sockets, addresses, run))
            for number in range(len(homes))
        ]
        for process in processes:
            process.start()
    for number, process in enumerate(processes):
        process.join(_LONGEST_S)
        expected = -signal.SIGKILL if number == case.killed else 0
        if process.exitcode != expected:
            process.kill()
            raise RuntimeError(f"{case}: device {number} ended with {process.exitcode}, expected {expected}")
    told = [
        json.loads(line)
        for path in sorted(folder.glob("*.events"))
        for line in path.read_text().split("\n")
        if line
    ]
    (at,) = (event["at"] for event in told if event["what"] == "killed")
    begun = [event for event in told if event["what"] != "killed"]
    others = [home for number, home in enumerate(homes) if number != case.killed]
    for home in others:
        (task,) = PromptQueue(Home.open(home)).all()
        if (task.status, task.attempts) != (TaskStatus.FINISHED, 1):
            raise RuntimeError(f"{case}: a prompt is {task.status}, after {task.attempts} attempts")
    if len(begun) != len(others):
        raise RuntimeError(f"{case}: {len(begun)} pictures of {len(others)} devices")
    return max(event["at"] for event in begun) - at, sum(event["what"] == "finish" for event in begun)


def _homes(folder: Path, count: int) -> list[Path]:
    """Create homes with a prompt each, each paired with all others."""
    homes = [folder / f"device{number}" for number in range(count)]
    for number, home in enumerate(homes):
        PromptQueue(Home.open(home, number)).add(PROMPTS[number])
    for home in homes:
        for other in homes:
            if other != home:
                Peers(Home.open(home)).add(other.name, Peers(Home.open(other)).own())
    return homes


def _side(
    folder: Path,
    case: Case,
    number: int,
    homes: Sequence[Path],
    sockets: Sequence[socket.socket],
    addresses: dict[str, str],
    run: Callable[..., None],
) -> None:
    """Run one device in its own process, which ends here."""
    for other, listening in enumerate(sockets):
        if other != number:
            listening.close()
    events = (folder / f"{number}.events").open("w")

    def tell(what: str) -> None:
        events.write(json.dumps({"what": what, "at": time.monotonic()}) + "\n")
        events.flush()

    if number == case.killed:
        _kill_before(case, tell)
    for what in ("finish", "alone"):
        setattr(Device, what, _told(getattr(Device, what), what, tell))
    agent = Agent(homes[number], AgentSettings(0, model()))
    section = model()
    terms = Terms(STEPS, SHARED, 5.0, section.height, section.width)
    cost = 0 if number == case.executor else 50
    run(agent, cost, terms, number, sockets[number], addresses)
    os._exit(0)


def _kill_before(case: Case, tell: Callable[[str], None]) -> None:
    send, one_at_a_time, left = Frames.send, threading.Lock(), [case.nth]

    def sending(self: Frames, data: bytes) -> None:
        with one_at_a_time:  # each connection has a thread
            if data.startswith(case.before.encode()):
                left[0] -= 1
                if not left[0]:
                    tell("killed")
                    os.kill(os.getpid(), signal.SIGKILL)
        send(self, data)

    Frames.send = sending  # type: ignore[method-assign]


def _told(method: Callable[..., Any], what: str, tell: Callable[[str], None]) -> Callable[..., Any]:
    def telling(*arguments: Any, **named: Any) -> Any:
        tell(what)
        return method(*arguments, **named)

    return telling


def _pair(
    agent: Agent,
    cost: int,
    terms: Terms,
    number: int,
    listening: socket.socket,
    addresses: dict[str, str],
) -> None:
    sharer = Sharer(agent, cost)
    if number == 0:
        listening.close()
        sharer.call(calling(sharer, "device1", addresses["device1"]), terms)
        return
    ending = threading.Event()

    def said(outcome: Outcome) -> None:
        ending.set()

    listen(sharer, listening, ending, said)


def _cluster(
    agent: Agent,
    cost: int,
    terms: Terms,
    number: int,
    listening: socket.socket,
    addresses: dict[str, str],
) -> None:
    others = {name: address for name, address in addresses.items() if name != f"device{number}"}
    Member(agent, cost).take_part(1, listening, others, terms)


if __name__ == "__main__":
    main()
