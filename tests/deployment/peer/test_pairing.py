"""Pairing over real sockets: who has the code is kept on both sides, and nobody else on either."""

import json
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fedaigc.deployment.peer.frames import Frames, PeerGone, PeerMistake
from fedaigc.deployment.peer.meeting import join_peer, wait_for_peer
from fedaigc.deployment.peer.paired import Card, Peers
from fedaigc.deployment.peer.pairing import MAX_CODE_ATTEMPTS, WrongCode, invite, join, new_code, typed_code
from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile, UserError

CODE, WRONG = "123456", "123457"


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        Home.open(tmp_path / name, 0)
    return tmp_path / "a", tmp_path / "b"


class Invitation:
    """A device that shows `CODE`, in a thread."""

    def __init__(self, home: Path, name: str = "tablet", patience_s: float = 20.0) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.said: list[str] = []
        self.card: Card | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(home, name, patience_s))
        self._thread.start()

    def _run(self, home: Path, name: str, patience_s: float) -> None:
        try:
            self.card = wait_for_peer(home, name, CODE, self.socket, self.said.append, patience_s)
        except Exception as error:
            self.error = error

    def end(self) -> "Invitation":
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.socket.close()
        return self


def kept(home: Path) -> list[str]:
    return [name for name, _ in Peers(Home.open(home)).all()]


def test_both_keep_each_other(homes: tuple[Path, Path]) -> None:
    a, b = homes
    invitation = Invitation(a)
    card = join_peer(b, "kitchen", typed_code("123 456"), invitation.address)
    assert invitation.end().error is None
    of_a, of_b = (Peers(Home.open(home)) for home in homes)
    assert card == of_a.own() == of_b.get("kitchen")
    assert invitation.card == of_b.own() == of_a.get("tablet")
    for path in (a / "peers").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    # the own keys stay, and a peer is forgotten when its owner says so
    assert Peers(Home.open(a)).own() == of_a.own()
    of_a.remove("tablet")
    assert kept(a) == []


def test_a_wrong_code_is_refused_and_shown_to_both(homes: tuple[Path, Path]) -> None:
    a, b = homes
    invitation = Invitation(a)
    for _ in range(MAX_CODE_ATTEMPTS):
        with pytest.raises(UserError, match="does not have this code"):
            join_peer(b, "kitchen", WRONG, invitation.address)
    assert isinstance(invitation.end().error, UserError)
    assert [line.endswith(f"(try {n} of 3 with this code)") for n, line in enumerate(invitation.said, 1)] == [
        True
    ] * MAX_CODE_ATTEMPTS
    assert "a wrong code from 127.0.0.1" in (a / "errors.log").read_text()
    assert "does not have this code" in (b / "errors.log").read_text()
    assert kept(a) == kept(b) == []


def test_the_right_code_still_pairs_after_one_mistake_and_noise(homes: tuple[Path, Path]) -> None:
    a, b = homes
    invitation = Invitation(a)
    host, port = invitation.address.split(":")
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\3abc"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(noise)
    with pytest.raises(UserError):
        join_peer(b, "kitchen", WRONG, invitation.address)
    join_peer(b, "kitchen", CODE, invitation.address)
    assert invitation.end().error is None
    assert len(invitation.said) == 1
    assert kept(a) == ["tablet"]


class Recorded(Frames):
    """Frames whose sent bytes are kept."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end, 5)
        self.sent = b""

    def send(self, data: bytes) -> None:
        self.sent += len(data).to_bytes(4, "big") + data
        super().send(data)


def cards(homes: tuple[Path, Path]) -> list[Card]:
    return [Peers(Home.open(home)).own() for home in homes]


def inviting(
    end: socket.socket, own: Card, code: str, frames: Frames | None = None
) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        with closing(end):
            try:
                invite(frames or Frames(end, 5), code, own, found.append, lambda: found.append("try"))
            except Exception as error:
                found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = socket.socketpair()
    with closing(one), closing(two):
        yield one, two


def test_recorded_messages_are_of_no_use(
    homes: tuple[Path, Path], pair: tuple[socket.socket, socket.socket]
) -> None:
    own_a, own_b = cards(homes)
    wire = Recorded(pair[0])
    thread, found = inviting(pair[1], own_a, CODE)
    join(wire, CODE, own_b, lambda card: None)
    thread.join()
    assert found == ["try", own_b]
    again, other = socket.socketpair()
    thread, found = inviting(other, own_a, CODE)
    with closing(again):
        again.sendall(wire.sent)
        thread.join()
    assert found[0] == "try"
    assert isinstance(found[1], WrongCode)
    assert not any(isinstance(each, Card) for each in found)


def test_a_man_in_the_middle_with_his_own_key_gets_nowhere(tmp_path: Path, homes: tuple[Path, Path]) -> None:
    """He pairs with both sides at once, as each of them, without the code."""
    own_a, own_b = cards(homes)
    Home.open(tmp_path / "m", 0)
    middle = Peers(Home.open(tmp_path / "m")).own()
    to_a, a_end = socket.socketpair()
    to_b, b_end = socket.socketpair()
    inviter, at_a = inviting(a_end, own_a, CODE)
    toward_b, of_middle = inviting(to_b, middle, WRONG)
    kept_by_b: list[Card] = []
    with pytest.raises((WrongCode, PeerGone)), closing(b_end):
        join(Frames(b_end, 5), CODE, own_b, kept_by_b.append)
    with pytest.raises(WrongCode), closing(to_a):
        join(Frames(to_a, 5), WRONG, middle, kept_by_b.append)
    inviter.join()
    toward_b.join()
    assert isinstance(at_a[-1], WrongCode)
    assert isinstance(of_middle[-1], WrongCode)
    assert kept_by_b == []


def test_nothing_of_the_cards_crosses_in_the_clear(
    homes: tuple[Path, Path], pair: tuple[socket.socket, socket.socket]
) -> None:
    own_a, own_b = cards(homes)
    wires = [Recorded(end) for end in pair]
    thread, found = inviting(pair[1], own_a, CODE, wires[1])
    join(wires[0], CODE, own_b, lambda card: None)
    thread.join()
    assert found == ["try", own_b]
    for wire in wires:
        for card in (own_a, own_b):
            assert card.seal.encode() not in wire.sent
            assert b"CERTIFICATE" not in wire.sent
        assert CODE.encode() not in wire.sent


@pytest.mark.parametrize(
    "answer",
    [b"", b"B" + bytes(32), b"B" + b"\xff" * 32, b"A" + bytes(32), b"B" + (1).to_bytes(32, "little")],
)
def test_bytes_that_are_no_message_are_refused(
    homes: tuple[Path, Path], pair: tuple[socket.socket, socket.socket], answer: bytes
) -> None:
    Frames(pair[0], 5).send(answer)
    with pytest.raises(PeerMistake):
        join(Frames(pair[1], 5), CODE, cards(homes)[0], lambda card: pytest.fail("kept"))


def test_a_frame_that_is_announced_too_long_or_never_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall((2**31).to_bytes(4, "big"))
    with pytest.raises(PeerMistake, match="expected at most 10"):
        Frames(pair[1], 5).receive(10)
    pair[0].sendall(b"\0\0")
    with pytest.raises(PeerGone, match="does not answer"):
        Frames(pair[1], 0.2).receive(10)


def test_a_code_ends_by_time(homes: tuple[Path, Path]) -> None:
    assert "nobody paired" in str(Invitation(homes[0], patience_s=0.1).end().error)


@pytest.mark.parametrize("text", ["", "12345", "1234567", "12345a", "１２３４５６"])
def test_a_code_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="6 digits"):
        typed_code(text)
    assert typed_code(new_code())


def test_names_and_files(homes: tuple[Path, Path]) -> None:
    of_a, of_b = (Peers(Home.open(home)) for home in homes)
    for name in ("", "own", "../x", "A", "x" * 33):
        with pytest.raises(UserError, match="no name for a device"):
            of_a.add(name, of_b.own())
    with pytest.raises(UserError, match="the device itself"):
        of_a.add("me", of_a.own())
    of_a.add("tablet", of_b.own())
    with pytest.raises(UserError, match="already paired as 'tablet'"):
        of_a.add("phone", of_b.own())
    for action in (of_a.get, of_a.remove):
        with pytest.raises(UserError, match="paired: tablet"):
            action("phone")
    path = homes[0] / "peers" / "tablet.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seal": "00"}))
    with pytest.raises(DamagedFile, match="pair this device again"):
        of_a.get("tablet")


def test_waiting_needs_a_name_first(homes: tuple[Path, Path]) -> None:
    failing: Callable[[str], object] = pytest.fail
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(UserError, match="no name"):
        wait_for_peer(homes[0], "Own", CODE, listening, failing)
    with suppress(UserError):
        join_peer(homes[0], "tablet", CODE, "127.0.0.1:1")
    assert kept(homes[0]) == []
