"""Announcements over real multicast on this machine: found by paired devices alone, and of no use elsewhere."""

import ipaddress
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedaigc.bounds import MAX_PEERS
from fedaigc.deployment.peer.connections import seeking
from fedaigc.deployment.peer.discovery import SERVICE, Finder, announced
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.home.home import Home
from fedaigc.errors import UserError
from tests.deployment.peer.devices import ANSWERS, CALLS, NAMES, TERMS, paired_homes, pictures, sharer_of

zeroconf = pytest.importorskip("zeroconf", reason="needs the extra discovery")
LOOPBACK = "127.0.0.1"


@pytest.fixture
def peers(tmp_path: Path) -> dict[str, Peers]:
    """Devices a and b, which are paired, and c, which is paired with nobody."""
    found = {name: Peers(Home.open(tmp_path / name, number)) for number, name in enumerate("abc")}
    found["a"].add("b", found["b"].own())
    found["b"].add("a", found["a"].own())
    return found


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as at:
        yield at


def heard(finder: Finder) -> Any:
    """Return the first announcement that a finder heard."""
    until = time.monotonic() + 60
    while not finder._heard:
        assert time.monotonic() < until
        time.sleep(0.05)
    return next(iter(finder._heard.values()))


def test_a_paired_device_is_found_and_by_nobody_else(
    peers: dict[str, Peers], listening: socket.socket
) -> None:
    address = f"{LOOPBACK}:{listening.getsockname()[1]}"
    a, b, c = (peers[name].own() for name in "abc")
    with Finder(peers["b"], [LOOPBACK]) as of_b, Finder(peers["c"], [LOOPBACK]) as of_c:
        with announced(peers["a"], listening):
            assert of_b.wait(a, 60) == [address]
            heard(of_c)
            # c knows the card of a, but a is not paired with it; and what a says is not said by b
            assert of_c.addresses(a) == []
            assert of_b.addresses(b) == of_b.addresses(c) == []
        until = time.monotonic() + 60
        while of_b.addresses(a):
            assert time.monotonic() < until
            time.sleep(0.05)


def test_an_announcement_says_nothing_of_keys_and_never_the_same_twice(
    peers: dict[str, Peers], listening: socket.socket
) -> None:
    said = []
    for name in ("a", "a", "c"):
        with Finder(peers["b"], [LOOPBACK]) as finder, announced(peers[name], listening):
            said.append(heard(finder))
    contents = [{info.name.removesuffix(SERVICE), info.server, *info.properties.values()} for info in said]
    assert contents[0].isdisjoint(contents[1])
    # who is paired with nobody announces as many tags
    sizes = [{key: len(value or b"") for key, value in info.properties.items()} for info in said]
    assert sizes[0] == sizes[2]
    assert sum(sizes[0].values()) == 16 + 8 * MAX_PEERS
    cards = [peers[name].own() for name in "ab"]
    secrets = [part for card in cards for part in (card.seal_key, bytes.fromhex(card.fingerprint), card.der)]
    for info in said:
        sent = b"".join([info.text, info.name.encode(), info.server.encode()])
        assert not [secret for secret in secrets if secret in sent or secret[:8] in sent]


def test_an_announcement_that_was_changed_or_is_none_leads_nowhere(
    peers: dict[str, Peers], listening: socket.socket
) -> None:
    a = peers["a"].own()
    with Finder(peers["b"], [LOOPBACK]) as finder, announced(peers["a"], listening):
        true = heard(finder)
        assert finder._read(true, a) != []

        def like(**values: Any) -> Any:
            made = {"port": true.port, "addresses": true.addresses, "properties": dict(true.properties)}
            return zeroconf.ServiceInfo(SERVICE, f"x.{SERVICE}", server="x.local.", **{**made, **values})

        assert finder._read(like(), a) == finder._read(true, a)
        other = ipaddress.IPv4Address("192.0.2.7").packed
        changes: tuple[dict[str, Any], ...] = (
            {"port": true.port - 1},
            {"addresses": [other]},
            {"addresses": [*true.addresses, other]},
            {"properties": {}},
            {"properties": {**true.properties, b"n": bytes(16)}},
            {"properties": {**true.properties, b"n": b"short"}},
            {"properties": {**true.properties, b"t0": None}},
            {"properties": {f"t{part}": bytes(128) for part in range(4)} | {"n": bytes(16)}},
        )
        for wrong in changes:
            assert finder._read(like(**wrong), a) == []


def test_a_device_is_called_where_it_announces_itself(
    tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers there, so the prompt is drawn alone; the reason has the address."""
    homes = paired_homes(tmp_path, ("an apple on a table", "a lemon on a table"))
    caller, answerer = (sharer_of(home, small_model) for home in homes)
    enter = Finder.__init__

    def on_loopback(self: Finder, peers: Peers, at: Any = ()) -> None:
        enter(self, peers, [LOOPBACK])

    monkeypatch.setattr(Finder, "__init__", on_loopback)
    with socket.create_server((LOOPBACK, 0)) as at:
        with announced(answerer.peers, at):
            at.shutdown(socket.SHUT_RDWR)
            outcome = caller.call(seeking(caller, NAMES[ANSWERS], 60), TERMS)
        assert f"no device answers at {LOOPBACK}:{at.getsockname()[1]}" in outcome.why
    assert len(pictures(homes[CALLS])) == 1
    with pytest.raises(UserError, match="no prompt waits"):
        caller.call(seeking(caller, NAMES[ANSWERS], 1), TERMS)


def test_where_no_announcement_can_be_made(peers: dict[str, Peers]) -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        pytest.raises(UserError, match="give the address"),
        announced(peers["a"], six),
    ):
        pytest.fail("announced")
    with socket.create_server(("0.0.0.0", 0)) as everywhere, Finder(peers["b"]) as finder:
        with announced(peers["a"], everywhere):
            hosts = {where.rpartition(":")[0] for where in finder.wait(peers["a"].own(), 60)}
        assert hosts
        assert all(not ipaddress.ip_address(host).is_unspecified for host in hosts)
