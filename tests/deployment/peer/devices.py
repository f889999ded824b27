"""Two paired devices of the small model as processes of their own, which can be killed at any frame."""

import json
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.deployment.peer.connections import calling, listen
from fedaigc.deployment.peer.frames import Frames
from fedaigc.deployment.peer.paired import Peers
from fedaigc.deployment.peer.sharing import Outcome, Sharer, Terms
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, Task
from fedaigc.federation.config.run_config import ModelSection

TERMS = Terms(steps=4, shared_steps=2, guidance_scale=5.0, height=32, width=32)
CALLS, ANSWERS = 0, 1
NAMES = ("caller", "answerer")


def paired_homes(folder: Path, prompts: tuple[str, str]) -> tuple[Path, Path]:
    """Create two homes with a prompt each, paired with each other."""
    homes = folder / NAMES[CALLS], folder / NAMES[ANSWERS]
    for number, home in enumerate(homes):
        PromptQueue(Home.open(home, number)).add(prompts[number])
    for number, home in enumerate(homes):
        Peers(Home.open(home)).add(NAMES[1 - number], Peers(Home.open(homes[1 - number])).own())
    return homes


def sharer_of(home: Path, small_model: Path, cost: int = 0, **settings: Any) -> Sharer:
    model = ModelSection(name=str(small_model), height=32, width=32)
    return Sharer(Agent(home, AgentSettings(0, model, **settings)), cost, frame_s=120, compute_s=120)


@dataclass
class Ran:
    """What became of a sharing.

    Attributes:
        outcomes: Outcome of either device; None if its process was killed.
        sent: Every frame that either device sent, as it was before TLS.
    """

    outcomes: list[Outcome | None]
    sent: list[list[bytes]]


def run(folder: Path, sharers: tuple[Sharer, Sharer], killed: tuple[int, int] | None = None) -> Ran:
    """Let one device call the other one, both as processes of their own.

    Args:
        folder: Folder for what they tell.
        sharers: The device that calls, and the one that answers.
        killed: Which of them is killed by SIGKILL, and before its how manieth frame, sent or received.
    """
    fork = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sides: tuple[Callable[[], Outcome], ...] = (
            lambda: sharers[CALLS].call(_calling(sharers[CALLS], listening), TERMS),
            lambda: _answered(sharers[ANSWERS], listening),
        )
        processes = []
        for number in (ANSWERS, CALLS):
            frame = killed[1] if killed is not None and killed[0] == number else None
            process = fork.Process(target=_side, args=(folder / f"{number}", sides[number], frame))
            process.start()
            processes.append(process)
        for process in processes:
            process.join(240)
            if process.is_alive():
                process.kill()
                raise AssertionError("a device is still at work")
    outcomes: list[Outcome | None] = []
    sent = []
    for number in (CALLS, ANSWERS):
        path = folder / f"{number}"
        told = path.with_suffix(".outcome")
        outcomes.append(Outcome(**json.loads(told.read_text())) if told.exists() else None)
        lines = path.with_suffix(".sent").read_text().split()
        sent.append([bytes.fromhex(line) for line in lines])
    return Ran(outcomes, sent)


def tasks(home: Path) -> list[Task]:
    return PromptQueue(Home.open(home)).all()


def pictures(home: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (home / "gallery").glob("*.png")}


def _calling(sharer: Sharer, listening: socket.socket) -> Any:
    return calling(sharer, NAMES[ANSWERS], f"127.0.0.1:{listening.getsockname()[1]}")


def _answered(sharer: Sharer, listening: socket.socket) -> Outcome:
    ending, found = threading.Event(), []

    def said(outcome: Outcome) -> None:
        found.append(outcome)
        ending.set()

    listen(sharer, listening, ending, said)
    return found[0]


def _side(path: Path, work: Callable[[], Outcome], killed: int | None) -> None:
    """Run one side in its own process, and write down what it sends."""
    frames = 0
    send, receive = Frames.send, Frames.receive
    record = path.with_suffix(".sent").open("w")

    def reached() -> None:
        nonlocal frames
        frames += 1
        if frames == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    def sending(self: Frames, data: bytes) -> None:
        reached()
        record.write(data.hex() + "\n")
        record.flush()
        send(self, data)

    def receiving(self: Frames, most: int, patience_s: float | None = None) -> bytes:
        reached()
        return receive(self, most, patience_s)

    # the process is a fork, which ends here
    Frames.send, Frames.receive = sending, receiving  # type: ignore[method-assign]
    outcome = work()
    told = asdict(outcome)
    told["report"] = None
    path.with_suffix(".outcome").write_text(json.dumps(told))
    os._exit(0)
