"""The connections of a door, and which of them is closed when there are too many.

A connection that has not yet sent a whole header is closed first, the oldest before others; one whose
requests succeeded (with keys: a registered device's) is closed last. A peer that opens many connections and
sends nothing thus displaces its own, even where it shares an address with devices.
"""

import contextlib
import enum
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from fedaigc.bounds import (
    MAX_BODY_BYTES_IN_FLIGHT,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_OF_ADDRESS,
    MAX_UNPROVEN_BYTES_IN_FLIGHT,
    MAX_UNPROVEN_CONNECTIONS,
)

HEADER_S = 10.0
# in this time a body must advance by PROGRESS_BYTES, and a reader must not stall
STALLED_S = 20.0
PROGRESS_BYTES = 1 << 16
# the time for a body while others wait for room
SLOW_S = 5.0


class Stage(enum.IntEnum):
    """What a connection is doing; lower stages are closed first."""

    # no whole header yet
    ARRIVING = 0
    # sending a body
    SENDING = 1
    # between requests
    IDLE = 2
    # its request is at the SuperLink, or the reply is being sent
    SERVED = 3


def _nothing() -> None:
    """Do nothing: the `close` of an `Arrival` without a connection."""


@dataclass(eq=False)
class Arrival:
    """A connection to the door.

    Attributes:
        address: Network of its peer, see `_network`.
        close: Closes the connection.
        since: Time of its last progress, on the clock of `time.monotonic`.
        stage: What it is doing.
        proven: Whether one of its requests succeeded or was signed with a known key.
        reading_stalls: Time since which the peer has read nothing of a reply; None if it reads.
        ours: Returns whether the door itself has paused reading.
        waits: Whether it waits for room for its body.
        body_bytes: Bytes of its request's body that are in flight and not yet answered.
        closed: Whether it was closed.
    """

    address: str = ""
    close: Callable[[], None] = _nothing
    since: float = field(default_factory=time.monotonic)
    stage: Stage = Stage.ARRIVING
    proven: bool = False
    reading_stalls: float | None = None
    ours: Callable[[], bool] = lambda: False
    waits: bool = False
    body_bytes: int = 0
    closed: bool = False
    _towards: int = 0

    def enter(self, stage: Stage) -> None:
        """Enter a new stage."""
        self.stage, self.since, self._towards = stage, time.monotonic(), 0

    def progress(self, num_bytes: int) -> None:
        """Count `num_bytes` of a body that have arrived."""
        self._towards += num_bytes
        if self._towards >= PROGRESS_BYTES:
            self.since, self._towards = time.monotonic(), 0

    def late(self, now: float) -> bool:
        """Return whether the connection has exceeded its time. `now`: as `time.monotonic` returns it."""
        if self.reading_stalls is not None and now - self.reading_stalls > STALLED_S:
            return True
        patience = {Stage.ARRIVING: HEADER_S, Stage.SENDING: STALLED_S}.get(self.stage)
        return patience is not None and not (self.waits or self.ours()) and now - self.since > patience

    def drop(self) -> None:
        """Close the connection."""
        self.closed, self.body_bytes = True, 0
        self.close()


class Admission:
    """The connections of a door, for use in one event loop: no method blocks."""

    def __init__(self) -> None:
        self._arrivals: dict[tuple[str, int], tuple[Arrival, socket.socket]] = {}

    def admits(self, connection: socket.socket, address: tuple[str, int]) -> bool:
        """Enter a new connection, closing others if there is no room.

        Args:
            connection: Socket of the connection.
            address: Address and port of the peer.

        Returns:
            False if there is no room and no other connection may be closed for it.
        """
        self._forget_closed()
        key, whose = (address[0], address[1]), _network(address[0])
        live = [arrival for arrival, _ in self._arrivals.values()]
        counts = Counter(arrival.address for arrival in live)
        room = (
            counts[whose] < MAX_CONNECTIONS_OF_ADDRESS
            or _displace(arrival for arrival in live if arrival.address == whose)
        ) and (len(live) < MAX_CONNECTIONS or _displace(live))
        unproven = [arrival for arrival in live if not (arrival.proven or arrival.closed)]
        if room and len(unproven) >= MAX_UNPROVEN_CONNECTIONS:
            # of the address with the most unproven connections
            most = Counter(arrival.address for arrival in unproven).most_common(1)[0][0]
            room = _displace(arrival for arrival in unproven if arrival.address == most)
        if room:
            self._arrivals[key] = Arrival(whose, lambda: _shut(connection)), connection
        return room

    def of(self, address: tuple[str, int] | None) -> Arrival:
        """Return the connection from this address, or a new unconnected one if none was entered."""
        found = self._arrivals.get((address[0], address[1])) if address else None
        return found[0] if found else Arrival()

    def sweep(self) -> None:
        """Close connections that have exceeded their time."""
        self._forget_closed()
        now = time.monotonic()
        for arrival, _ in self._arrivals.values():
            if arrival.late(now):
                arrival.drop()

    def reserves(self, arrival: Arrival, num_bytes: int) -> bool:
        """Reserve room for the whole body of a proven connection; if there is none, close slow ones.

        A body that has begun can therefore be completed: no two bodies wait for each other.

        Args:
            arrival: The connection.
            num_bytes: Length of its body.

        Returns:
            Whether the room was reserved.
        """
        held = [other for other in self._live() if other.proven and other.body_bytes]
        if sum(other.body_bytes for other in held) + num_bytes > MAX_BODY_BYTES_IN_FLIGHT:
            now = time.monotonic()
            for other in held:
                slow = other.stage is Stage.SENDING and not other.ours() and now - other.since > SLOW_S
                if slow and other is not arrival:
                    other.drop()
            return False
        arrival.body_bytes = num_bytes
        return True

    def takes(self, arrival: Arrival, num_bytes: int) -> bool:
        """Count more bytes of an unproven connection's body.

        While there is no room, the unproven connection with the largest body is closed unless it is this one.

        Args:
            arrival: The connection.
            num_bytes: Bytes that have arrived.

        Returns:
            False if this connection's own body is the largest when there is no room.
        """
        arrival.body_bytes += num_bytes
        held = [other for other in self._live() if not other.proven and other.body_bytes]
        while sum(other.body_bytes for other in held) > MAX_UNPROVEN_BYTES_IN_FLIGHT:
            largest = max(held, key=lambda other: other.body_bytes)
            largest.body_bytes = 0
            if largest is arrival:
                return False
            largest.drop()
        return True

    def _live(self) -> list[Arrival]:
        return [arrival for arrival, _ in self._arrivals.values() if not arrival.closed]

    def _forget_closed(self) -> None:
        for key in [key for key, (_, connection) in self._arrivals.items() if connection.fileno() < 0]:
            del self._arrivals[key]


def _network(address: str) -> str:
    """Return what counts as one address: for IPv6 the /64 network that a provider gives to one customer."""
    return str(ip_network((address.partition("%")[0], 64), strict=False)) if ":" in address else address


def _displace(candidates: Iterable[Arrival]) -> bool:
    """Close the least valuable of the candidates; False if none may be closed."""
    possible = [
        arrival
        for arrival in candidates
        if not arrival.closed
        and arrival.stage is not Stage.SERVED
        and not (arrival.proven and arrival.stage is Stage.SENDING)
    ]
    if not possible:
        return False
    min(possible, key=lambda arrival: (arrival.proven, arrival.stage, arrival.since)).drop()
    return True


def _shut(connection: socket.socket) -> None:
    """End a connection whose TLS has not begun; its reader sees the end of the stream."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
