"""What an owner is told of other devices that share nothing in a round, and addresses that are refused before it."""

import socket
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fedaigc.deployment.cluster.links import Link, Links, Trouble
from fedaigc.deployment.cluster.machine import Waits
from fedaigc.deployment.cluster.messages import Offered, encoded
from fedaigc.deployment.cluster.offers import sign
from fedaigc.deployment.cluster.reasons import apart, not_there
from fedaigc.deployment.peer.frames import Frames, connected_to, is_own
from fedaigc.deployment.peer.paired import Peers
from fedaigc.deployment.peer.tls import secured_to
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import TaskStatus
from fedaigc.errors import UserError
from tests.deployment.cluster.devices import cluster_homes, member_of, name
from tests.deployment.cluster.network import offer
from tests.deployment.peer.devices import TERMS, tasks


@pytest.fixture
def homes(tmp_path: Path) -> list[Path]:
    return cluster_homes(tmp_path, [["an apple on a table"], ["a lemon on a table"], ["a pear on a table"]])


def peers_of(home: Path) -> Peers:
    return Peers(Home.open(home))


def trouble_with(home: Path, link: Link) -> tuple[Trouble, str]:
    """Return what becomes of the connection of a device to another one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Links(peers_of(home), {link.card.fingerprint: link}, listening, 5, 1 << 20) as links,
    ):
        until = time.monotonic() + 60
        while not links.troubles:
            assert time.monotonic() < until
            links.next(0.05)
        return links.troubles[link.card.fingerprint]


def answering(at: socket.socket, answer: bytes) -> None:
    """Answer every connection with bytes, and end it, until the socket is closed."""

    def run() -> None:
        while True:
            try:
                connection, _ = at.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()


def test_what_answers_at_an_address(homes: list[Path]) -> None:
    card = peers_of(homes[1]).own()
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        link = Link("desk1", card, address)
        answering(there, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        web = trouble_with(homes[0], link)
        assert web[0] is Trouble.STRANGER
        told = not_there(link, "", web)
        assert told.startswith(f"desk1 did not come to this round: at {address} is another one (")
        assert told.endswith("give its address, or pair with it again")
        # a listening socket that is shut down wakes who waits for it
        there.shutdown(socket.SHUT_RDWR)
    nobody = trouble_with(homes[0], link)
    assert nobody[0] is Trouble.NOBODY
    assert f"no device answers at {address}: Connection refused: start it" in not_there(link, "", nobody)


def test_another_device_at_an_address_or_one_that_forgot_this_one(homes: list[Path]) -> None:
    cards = [peers_of(home).own() for home in homes]
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        known = {cards[0].fingerprint: Link("desk0", cards[0], "127.0.0.1:1")}
        with Links(peers_of(homes[1]), known, there, 5, 1 << 20):
            # desk 1 is where desk 2 was to be
            assert trouble_with(homes[0], Link("desk2", cards[2], address))[0] is Trouble.STRANGER
            peers_of(homes[1]).remove("desk0")
            link = Link("desk1", cards[1], address)
            forgotten = trouble_with(homes[0], link)
            assert forgotten[0] is Trouble.ENDED
            assert "pair it with this device" in not_there(link, "", forgotten)


def test_the_end_of_a_round_does_not_wait_for_a_device_that_no_longer_accepts(homes: list[Path]) -> None:
    card = peers_of(homes[1]).own()
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_server(("127.0.0.1", 0)) as listening:
        link = Link("desk1", card, f"127.0.0.1:{there.getsockname()[1]}")
        there.settimeout(60)
        with Links(peers_of(homes[0]), {card.fingerprint: link}, listening, 60, 1 << 20):
            connection, _ = there.accept()
            # the handshake has begun, and is never answered
            assert connection.recv(1 << 16)
        with connection:
            connection.setblocking(False)
            # it is still waited for, by nobody but its thread
            with pytest.raises(BlockingIOError):
                connection.recv(1)


def test_two_numbers_of_a_round_are_told_to_the_owner(homes: list[Path], small_model: Path) -> None:
    """The other device says the number of its round, and leaves."""
    other = peers_of(homes[1])
    member = member_of(homes[0], small_model, waits=Waits(collect_s=120, gone_s=0.2))
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = f"127.0.0.1:{listening.getsockname()[1]}"

        def in_round_seven() -> None:
            made = replace(offer(1, [], at_round=7).offer, device=other.own().fingerprint, space="")
            signed = sign(made, other.tls_file)
            with (
                connected_to(here, "--to", 60) as connection,
                closing(secured_to(connection, other, peers_of(homes[0]).own(), 60)) as secured,
            ):
                Frames(secured, 60).send(encoded(Offered(signed.text, signed.by)))

        thread = threading.Thread(target=in_round_seven)
        thread.start()
        (outcome,) = member.take_part(1, listening, {name(1): nobody}, TERMS, tell=said.append)
        thread.join()
    told = "desk1 did not come to this round: it is in round 7, this device in round 1: give all devices the same"
    assert [text.startswith(told) for text in said] == [True]
    assert said[0] in (homes[0] / "errors.log").read_text()
    assert outcome.why == "no other device came to this round"
    assert [task.status for task in tasks(homes[0])] == [TaskStatus.FINISHED]


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({}, ""),
        (
            {"shared_steps": 4},
            "desk1 shares 4 steps, this device 3: give all devices the same --shared-steps",
        ),
        ({"plan": "b" * 64}, "desk1 draws otherwise: give all devices the same --model"),
        ({"space": ""}, "desk1 compares prompts in another way"),
    ],
)
def test_why_offers_share_nothing(theirs: dict[str, object], told: str) -> None:
    own, signed = offer(0, [(0, 6)]), offer(1, [(0, 6)])
    found = apart(own.offer, [replace(signed, offer=replace(signed.offer, **theirs))], "desk1")  # type: ignore[arg-type]
    assert found.startswith(told)
    assert bool(found) is bool(told)
    assert "two different things" in apart(own.offer, [signed, offer(1, [(0, 6)], nonce=1)], "desk1")


def test_characters_of_another_device_do_not_reach_the_terminal(homes: list[Path]) -> None:
    link = Link("desk1", peers_of(homes[1]).own(), "127.0.0.1:1")
    assert not_there(link, "no \x1b[2J", None).endswith(r"no \x1b[2J")
    assert not_there(link, "", None).endswith("it offered nothing in time")


def test_the_own_address_and_one_for_two_are_refused_before_the_round(
    homes: list[Path], small_model: Path
) -> None:
    member = member_of(homes[0], small_model)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        own = f"127.0.0.1:{listening.getsockname()[1]}"
        for addresses, wrong in (
            ({"desk1": own}, f"--with desk1={own} is this device itself: give that of desk1"),
            ({"desk1": "127.0.0.1:1", "desk2": "127.0.0.1:1"}, "gives desk1 and desk2 one address"),
        ):
            with pytest.raises(UserError, match=wrong):
                member.take_part(1, listening, addresses, TERMS)
    # the number is not used up, and nothing was drawn
    assert not (homes[0] / "peers" / "own" / "round.json").exists()
    assert {task.status for task in tasks(homes[0])} == {TaskStatus.WAITING}


def test_which_addresses_are_those_of_this_machine() -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        port = everywhere.getsockname()[1]
        assert is_own(f"127.0.0.1:{port}", everywhere)
        assert is_own(f"localhost:{port}", everywhere)
        assert not is_own(f"127.0.0.1:{port - 1}", everywhere)
        # for documentation: of no machine
        assert not is_own(f"192.0.2.7:{port}", everywhere)
        assert not is_own(f"nowhere.invalid:{port}", everywhere)
    with socket.create_server(("127.0.0.2", 0)) as one:
        assert not is_own(f"127.0.0.1:{one.getsockname()[1]}", one)
        assert is_own(f"127.0.0.2:{one.getsockname()[1]}", one)
