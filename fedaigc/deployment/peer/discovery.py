"""Paired devices find each other's address by multicast DNS; others on the network learn only that devices are there.

A device that listens announces a service with a random name, and a tag for each device that it is paired with:

    n           16 random bytes, new with each announcement
    t0 ... t3   64 tags of 8 bytes: HMAC-SHA-256 of n, the addresses and the port, with a key that only the two devices
                have: it follows from X25519 of their keys for packets. Tags beyond those of paired devices are random.

So no name, key or number of paired devices is announced, and two announcements of one device have nothing in common but
its address. An announcement that is repeated from elsewhere leads to the old address. What answers at an address has to
show the certificate of the paired device in any case, see `tls`.
"""

import hashlib
import hmac
import ipaddress
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from fedaigc.bounds import MAX_ANNOUNCEMENTS, MAX_PEERS
from fedaigc.collaboration.sealing import shared_key
from fedaigc.deployment.peer.paired import Card, Peers
from fedaigc.errors import UserError
from fedaigc.extras import require_extra

SERVICE = "_fedaigc._tcp.local."
_LABEL = b"fedaigc announcement 1"
_NONCE, _TAG, _PARTS = 16, 8, 4
_PART = _TAG * MAX_PEERS // _PARTS
_MOST_ADDRESSES = 16
_POLL_S = 0.2


@contextmanager
def announced(peers: Peers, listening: socket.socket) -> Iterator[None]:
    """Announce, within the context, where this device listens, to the devices that it is paired with.

    Args:
        peers: Their keys, and those of this device.
        listening: A socket that listens.

    Raises:
        UserError: If it listens at no IPv4 address, or the network cannot be used for this.
    """
    require_extra("discovery", "announcements on the network")
    from zeroconf import ServiceInfo

    addresses = _addresses(listening)
    port = listening.getsockname()[1]
    nonce = secrets.token_bytes(_NONCE)
    own, seal_key = peers.own(), peers.seal_key()
    tags = [_tag(seal_key, card, own, nonce, addresses, port) for _, card in peers.all()]
    tags += [secrets.token_bytes(_TAG) for _ in range(MAX_PEERS - len(tags))]
    # where a tag stands says nothing
    secrets.SystemRandom().shuffle(tags)
    text = b"".join(tags)
    properties = {f"t{part}": text[part * _PART : (part + 1) * _PART] for part in range(_PARTS)}
    name = secrets.token_hex(8)
    info = ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=port,
        addresses=[address.packed for address in addresses],
        properties={"n": nonce, **properties},
        server=f"{name}.local.",
    )
    with _network([str(address) for address in addresses]) as network:
        network.register_service(info)
        try:
            yield
        finally:
            network.unregister_service(info)


class Finder:
    """Finds the addresses of paired devices that announce themselves, while the context is entered.

    Args:
        peers: The keys of this device, and of those that it is paired with.
        at: Addresses of this machine from whose networks to listen. Default: all.
    """

    def __init__(self, peers: Peers, at: Sequence[str] = ()) -> None:
        require_extra("discovery", "devices that find each other")
        self._own, self._seal_key = peers.own(), peers.seal_key()
        self._at = list(at)
        self._lock = threading.Lock()
        self._heard: dict[str, Any] = {}

    def __enter__(self) -> "Finder":
        from zeroconf import ServiceBrowser

        self._entered = _network(self._at)
        network = self._entered.__enter__()
        # its class is there with the extra alone
        listener: Any = self
        ServiceBrowser(network, SERVICE, listener=listener)
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def add_service(self, network: Any, kind: str, name: str) -> None:
        """Read an announcement; called in a thread of `zeroconf`."""
        info = network.get_service_info(kind, name)
        if info is None:
            return
        with self._lock:
            self._heard[name] = info
            while len(self._heard) > MAX_ANNOUNCEMENTS:
                del self._heard[next(iter(self._heard))]

    def update_service(self, network: Any, kind: str, name: str) -> None:
        """Read an announcement anew."""
        self.add_service(network, kind, name)

    def remove_service(self, network: Any, kind: str, name: str) -> None:
        """Forget an announcement that was taken back."""
        with self._lock:
            self._heard.pop(name, None)

    def addresses(self, card: Card) -> list[str]:
        """Return each host:port at which a device announces itself to this one now, latest announcement first."""
        with self._lock:
            heard = list(self._heard.values())
        found = [where for info in reversed(heard) for where in self._read(info, card)]
        return list(dict.fromkeys(found))

    def wait(self, card: Card, patience_s: float) -> list[str]:
        """Return `addresses` as soon as there is one; none if the device does not announce itself in time."""
        waiting = threading.Event()
        for _ in range(max(1, round(patience_s / _POLL_S))):
            if found := self.addresses(card):
                return found
            waiting.wait(_POLL_S)
        return []

    def _read(self, info: Any, card: Card) -> list[str]:
        """Return the addresses in an announcement, if that device made it for this one."""
        told: Mapping[bytes, bytes | None] = info.properties
        nonce = told.get(b"n") or b""
        parts = [told.get(b"t%d" % part) or b"" for part in range(_PARTS)]
        addresses = sorted(ipaddress.IPv4Address(each) for each in info.addresses[:_MOST_ADDRESSES])
        if len(nonce) != _NONCE or {len(part) for part in parts} != {_PART} or not info.port:
            return []
        wanted = _tag(self._seal_key, card, card, nonce, addresses, info.port)
        text = b"".join(parts)
        tags = (text[at : at + _TAG] for at in range(0, len(text), _TAG))
        # every tag is compared, so that the time says nothing
        if sum(hmac.compare_digest(tag, wanted) for tag in tags) == 0:
            return []
        return [f"{address}:{info.port}" for address in addresses]


def _tag(
    seal_key: bytes,
    other: Card,
    announcer: Card,
    nonce: bytes,
    addresses: Sequence[ipaddress.IPv4Address],
    port: int,
) -> bytes:
    key = shared_key(seal_key, other.seal_key, _LABEL)
    # of two devices that listen, neither is taken for the other
    told = [nonce, announcer.seal_key, port.to_bytes(2, "big"), *(each.packed for each in addresses)]
    return hmac.digest(key, b"".join(told), hashlib.sha256)[:_TAG]


def _addresses(listening: socket.socket) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses of a socket that listens, ascending; those of the machine if it listens at all."""
    host = listening.getsockname()[0]
    if listening.family != socket.AF_INET:
        raise UserError(f"{host} is no IPv4 address: without one, give the address to the other devices")
    if ipaddress.IPv4Address(host) != ipaddress.IPv4Address("0.0.0.0"):
        return [ipaddress.IPv4Address(host)]
    found = {
        ipaddress.IPv4Address(each.address)
        for interface in psutil.net_if_addrs().values()
        for each in interface
        if each.family == socket.AF_INET
    }
    outside = sorted(address for address in found if not address.is_loopback)
    return (outside or sorted(found))[:_MOST_ADDRESSES]


@contextmanager
def _network(at: Sequence[str]) -> Iterator[Any]:
    from zeroconf import InterfaceChoice, IPVersion, Zeroconf

    try:
        network = Zeroconf(interfaces=list(at) or InterfaceChoice.All, ip_version=IPVersion.V4Only)
    except OSError as error:
        raise UserError(
            f"multicast cannot be used here ({error.strerror or error}): give the address to the other devices"
        ) from None
    try:
        yield network
    finally:
        network.close()
