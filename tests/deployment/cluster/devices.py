"""Paired devices of the small model as processes of their own, which can be killed before a message."""

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedaigc.bounds import MAX_PEER_MESSAGE
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.deployment.cluster.links import Link, Links
from fedaigc.deployment.cluster.machine import Waits
from fedaigc.deployment.cluster.member import Member, Outcome
from fedaigc.deployment.peer.frames import Frames
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.federation.config.run_config import ModelSection
from tests.deployment.peer.devices import TERMS

WAITS = Waits(collect_s=90, commit_s=90, compute_s=240, gone_s=2)

# fruit on a table on 0 and 1, animals near a river on 0, 2 and 3; the executors are 1 and 3
PROMPTS = (
    ("a zorblax apple on a table", "a horse near a river"),
    ("a shiny lemon on a table",),
    ("a quuxdown dog near a river",),
    ("a frobnik cat near a river",),
)
WORDS = {"zorblax", "quuxdown", "frobnik", "shiny", "apple", "lemon", "horse"}
COSTS = (50, 0, 50, 10)


def name(number: int) -> str:
    return f"desk{number}"


def cluster_homes(folder: Path, prompts: Sequence[Sequence[str]]) -> list[Path]:
    """Create homes with their prompts, each paired with all others."""
    homes = [folder / name(number) for number in range(len(prompts))]
    for number, home in enumerate(homes):
        queue = PromptQueue(Home.open(home, number))
        for prompt in prompts[number]:
            queue.add(prompt)
    for home in homes:
        for other in homes:
            if other != home:
                Peers(Home.open(home)).add(other.name, Peers(Home.open(other)).own())
    return homes


def member_of(home: Path, small_model: Path, cost: int = 0, waits: Waits = WAITS, **settings: Any) -> Member:
    model = ModelSection(name=str(small_model), height=32, width=32)
    return Member(Agent(home, AgentSettings(0, model, **settings)), cost, waits, frame_s=60)


def check_frames(frames: Sequence[bytes]) -> None:
    """Check all that devices with `PROMPTS` sent in a round: one size of message, and one packet for each group."""
    words = [word.encode() for word in WORDS]
    assert not [word for word in words for frame in frames if word in frame]
    assert {len(frame) for frame in frames if not frame.startswith(b"FAGS")} == {MAX_PEER_MESSAGE}
    # one body for a group: all of its members get the same bytes
    assert len({frame for frame in frames if frame.startswith(b"FAGS")}) == 2


@dataclass
class Ran:
    """What became of a round.

    Attributes:
        outcomes: Outcomes of each device by task; None if its process was killed.
        sent: Every frame that each device sent, as it was before TLS.
        seconds: When each device that was not killed had decided and drawn, since the start.
        pids: Processes.
    """

    outcomes: list[dict[str, Outcome] | None]
    sent: list[list[bytes]]
    seconds: list[float]
    pids: list[int]


def run(
    folder: Path,
    members: Mapping[int, Member],
    number: int = 1,
    killed: tuple[int, bytes, int] | None = None,
    prompts: int = 2,
    late: tuple[int, int] | None = None,
) -> Ran:
    """Let devices go through a round, each as a process of its own.

    Args:
        folder: Folder for what they tell.
        members: The devices that take part, by their numbers.
        number: Number of the round.
        killed: Which of them is killed by SIGKILL: before it sends a frame that begins so, for how manieth time.
        prompts: How many prompts of each take part.
        late: Which of them connects to which other one only two seconds after it has committed.
    """
    fork = multiprocessing.get_context("fork")
    start = time.monotonic()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in members]
        addresses = {
            name(which): f"127.0.0.1:{listening.getsockname()[1]}" for which, listening in enumerate(sockets)
        }
        processes = []
        for which, member in members.items():
            kill = killed[1:] if killed is not None and killed[0] == which else None
            process = fork.Process(
                target=_side,
                args=(folder, which, member, number, sockets, addresses, prompts, kill, late),
            )
            process.start()
            processes.append(process)
    for process in processes:
        process.join(400)
        if process.is_alive():
            process.kill()
            raise AssertionError("a device is still at work")
    ran = Ran([], [], [], [process.pid or 0 for process in processes])
    for which in members:
        told = folder / f"{which}.outcome"
        found = json.loads(told.read_text()) if told.exists() else None
        ran.outcomes.append(
            None if found is None else {task: Outcome(**fields) for task, fields in found["tasks"].items()}
        )
        if found is not None:
            ran.seconds.append(found["ended"] - start)
        lines = (folder / f"{which}.sent").read_text().split()
        ran.sent.append([bytes.fromhex(line) for line in lines])
    return ran


def _side(
    folder: Path,
    which: int,
    member: Member,
    number: int,
    sockets: Sequence[socket.socket],
    addresses: Mapping[str, str],
    prompts: int,
    kill: tuple[bytes, int] | None,
    late: tuple[int, int] | None,
) -> None:
    """Run one device in its own process, and write down what it sends."""
    for other, listening in enumerate(sockets):
        if other != which:
            listening.close()
    late_to = None if late is None else (late[0], name(late[1]))
    left = kill[1] if kill is not None else 0
    send = Frames.send
    one_at_a_time = threading.Lock()  # each connection has a thread
    record = (folder / f"{which}.sent").open("w")
    committed = threading.Event()
    opening = Links._opening

    def opening_late(self: Links, device: str, link: Link) -> None:
        if (which, link.name) == late_to:
            committed.wait(60)
            time.sleep(2)
        opening(self, device, link)

    def sending(self: Frames, data: bytes) -> None:
        nonlocal left
        with one_at_a_time:
            if kill is not None and data.startswith(kill[0]):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            record.write(data.hex() + "\n")
            record.flush()
            send(self, data)
        if data.startswith(b'["commit"'):
            committed.set()

    # the process is a fork, which ends here
    Frames.send = sending  # type: ignore[method-assign]
    Links._opening = opening_late  # type: ignore[method-assign]
    others = {name: address for name, address in addresses.items() if name != f"desk{which}"}
    outcomes = member.take_part(number, sockets[which], others, TERMS, prompts)
    told = {outcome.task_id: {**asdict(outcome), "report": None} for outcome in outcomes}
    (folder / f"{which}.outcome").write_text(json.dumps({"tasks": told, "ended": time.monotonic()}))
    os._exit(0)
