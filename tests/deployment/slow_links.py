"""Paired devices in network namespaces of their own, which reach each other over slow links, and no server.

Each is reached through a relay that delays and keeps all bytes. Each writes down the frames that it sends, as they are
before TLS.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.deployment.canaries import Canaries, Found, Search
from tools.deployment.namespaces import address, device, inside, namespaces, possible

# for `pytestmark`
NEEDS = [
    pytest.mark.slow,
    pytest.mark.skipif(not possible(), reason="needs root, ip and tc to make network namespaces"),
]
# one way, to each device
DELAY_S = (0.01, 0.02, 0.03, 0.04)
PORT, RELAY = "7411", "7412"
HERE = f"127.0.0.1:{PORT}"
_SEALED = b"FAGS"
# records of TLS: a change of ciphers that means nothing, and those of a handshake before its keys
_CLEAR = {20, 22}
_APPLICATION = 23
_HELLOS = {1, 2}


@dataclass
class Apart:
    """Devices in namespaces, while the context of `apart` is entered.

    Attributes:
        folder: Folder for what they tell.
        running: Their processes, by number.
        spaces: Their namespaces.
    """

    folder: Path
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    spaces: set[str] = field(default_factory=set)

    def address(self, number: int) -> str:
        """Return the address at which the others reach a device."""
        return f"{address(number)}:{RELAY}"

    def start(self, number: int, *words: object) -> None:
        """Start `fedaigc device ...` in the namespace of a device."""
        program = [sys.executable, "-m", "tests.deployment.recorded_device", self.folder / f"{number}.sent"]
        command = inside(device(number), *map(str, [*program, "device", *words]))
        with (self.folder / f"{number}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.running[number] = process
        until = time.monotonic() + 60
        while (space := _space(process.pid)) == _space(os.getpid()):
            # `ip` enters the namespace, and then becomes the command
            assert process.poll() is None, self.said(number)
            assert time.monotonic() < until
            time.sleep(0.01)
        self.spaces.add(space)

    def end(self, numbers: Iterable[int], timeout_s: float = 1200) -> None:
        """Wait until devices have ended by themselves, without an error."""
        codes = {number: self.running[number].wait(timeout_s) for number in numbers}
        assert set(codes.values()) == {0}, [self.said(number) for number in codes]

    def said(self, number: int) -> str:
        """Return what a device printed."""
        return (self.folder / f"{number}.log").read_text()

    def sent(self, number: int) -> list[bytes]:
        """Return the frames that a device sent."""
        return [bytes.fromhex(line) for line in (self.folder / f"{number}.sent").read_text().split()]

    def forwarded(self) -> dict[str, bytes]:
        """Return what the relays forwarded, by connection and direction."""
        relays = sorted(self.folder.glob("relay*/*"))
        return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in relays}


@contextmanager
def apart(folder: Path, devices: int) -> Iterator[Apart]:
    """Make the namespaces and relays of devices; at the end, all processes are ended."""
    found = Apart(folder)
    relays: list[subprocess.Popen[bytes]] = []
    with namespaces(devices, among=True):
        try:
            for number in range(devices):
                kept = folder / f"relay{number}"
                kept.mkdir()
                relay = [address(number), RELAY, "127.0.0.1", PORT, str(DELAY_S[number]), str(kept)]
                command = [sys.executable, "-m", "tools.deployment.delay", *relay]
                relays.append(subprocess.Popen(inside(device(number), *command)))
            yield found
        finally:
            for process in [*found.running.values(), *relays]:
                process.kill()
                process.wait()


def check_apart(devices: Apart, homes: list[Path]) -> None:
    """Check that devices were processes with homes and namespaces of their own."""
    assert len(devices.spaces | {_space(os.getpid())}) == len(devices.running) + 1 == len(homes) + 1
    assert len({process.pid for process in devices.running.values()}) == len(homes)
    assert len({home.resolve() for home in homes}) == len(homes)


def check_captured(devices: Apart, canaries: Canaries) -> None:
    """Check that nothing private is in what devices sent, and nothing that can be read in what relays forwarded.

    Args:
        devices: The devices.
        canaries: What no message may hold.
    """
    search = Search(canaries)
    frames = [frame for number in devices.running for frame in devices.sent(number)]
    found: list[Found] = []
    for frame in frames:
        found += search.raw(frame, "frame")
        if not frame.startswith(_SEALED):
            found += search.values(json.loads(frame), "message")
    captured = devices.forwarded()
    for where, data in captured.items():
        found += search.raw(data, where)
    assert found == []
    # the same search finds a word where it is
    assert all(search.values([f"a {word}"], "here") for word in canaries.words)
    encrypted = 0
    for where, data in captured.items():
        records = list(_records(data))
        assert {kind for kind, _ in records} <= _CLEAR | {_APPLICATION}, where
        # in the clear are the hellos alone: no certificate, which would say who it is
        assert {content[0] for kind, content in records if kind == 22} <= _HELLOS, where
        encrypted += sum(len(content) for kind, content in records if kind == _APPLICATION)
    # it is the traffic of these devices, and no frame is in it as it was
    assert encrypted > sum(map(len, frames))
    assert not [frame for frame in frames for data in captured.values() if frame[:64] in data]


def canaries_of(words: set[str], homes: list[Path]) -> Canaries:
    """Return words, and the pictures in galleries, as what no message may hold."""
    drawn = [path for home in homes for path in sorted((home / "gallery").glob("*.png"))]
    return Canaries(frozenset(words), pixels=tuple(np.asarray(Image.open(path)) for path in drawn))


def _space(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the records of TLS in one direction; the last one may be cut short."""
    at = 0
    while at < len(data):
        kind, length = data[at], int.from_bytes(data[at + 3 : at + 5], "big")
        assert data[at + 1] == 3
        yield kind, data[at + 5 : at + 5 + length]
        at += 5 + length
