"""Which connections a door has, and which of them goes when there are too many.

A connection that has not said what it wants is the first to go, the oldest before others; one whose requests
were answered well (behind keys: a registered device's) is the last. So whoever opens many and says nothing
displaces itself, also where it shares an address with devices.
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
# a body, and a reader of replies, must get on by so much in so long
STALLED_S = 20.0
PROGRESS_BYTES = 1 << 16
# in so long where others wait for room
SLOW_S = 5.0


class Stage(enum.IntEnum):
    """What a connection does; those with smaller numbers go first."""

    # not yet a whole header
    ARRIVING = 0
    # within a body
    SENDING = 1
    # between requests
    IDLE = 2
    # its request is at the SuperLink, or the reply on its way
    SERVED = 3


def _nothing() -> None:
    """For a connection that is not there."""


@dataclass(eq=False)
class Arrival:
    """A connection.

    since: when it last got on, as `time.monotonic` counts. proven: a request of it was answered well.
    reading_stalls: since when its reader takes nothing of a reply. ours: whether the door does not read on.
    waits: for room for its body. body_bytes: of its request, on their way and not yet answered.
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
        """It begins something else."""
        self.stage, self.since, self._towards = stage, time.monotonic(), 0

    def progress(self, num_bytes: int) -> None:
        """So much of a body has come."""
        self._towards += num_bytes
        if self._towards >= PROGRESS_BYTES:
            self.since, self._towards = time.monotonic(), 0

    def late(self, now: float) -> bool:
        """Whether it has had its time."""
        if self.reading_stalls is not None and now - self.reading_stalls > STALLED_S:
            return True
        patience = {Stage.ARRIVING: HEADER_S, Stage.SENDING: STALLED_S}.get(self.stage)
        return patience is not None and not (self.waits or self.ours()) and now - self.since > patience

    def drop(self) -> None:
        """Close it."""
        self.closed, self.body_bytes = True, 0
        self.close()


class Admission:
    """The connections of a door. For one event loop: nothing here waits."""

    def __init__(self) -> None:
        self._arrivals: dict[tuple[str, int], tuple[Arrival, socket.socket]] = {}

    def admits(self, connection: socket.socket, address: tuple[str, int]) -> bool:
        """Enter a new connection, and close others for it; False when all of them are worth more."""
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
            # of the address that has most of them
            most = Counter(arrival.address for arrival in unproven).most_common(1)[0][0]
            room = _displace(arrival for arrival in unproven if arrival.address == most)
        if room:
            self._arrivals[key] = Arrival(whose, lambda: _shut(connection)), connection
        return room

    def of(self, address: tuple[str, int] | None) -> Arrival:
        """The connection from this address; a new one that is nobody's where none was entered."""
        found = self._arrivals.get((address[0], address[1])) if address else None
        return found[0] if found else Arrival()

    def sweep(self) -> None:
        """Close what has had its time."""
        self._forget_closed()
        now = time.monotonic()
        for arrival, _ in self._arrivals.values():
            if arrival.late(now):
                arrival.drop()

    def reserves(self, arrival: Arrival, num_bytes: int) -> bool:
        """Whether there is room for a whole body of a proven connection; those that are slow go for it.

        A body that began can so be brought to its end: none waits for another that waits for it.
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
        """Whether there is room for so many more bytes of a stranger's body; whose body has most goes for it.

        False when that is this one.
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
    """What counts as one address: of IPv6 the half that a provider gives to one customer."""
    return str(ip_network((address.partition("%")[0], 64), strict=False)) if ":" in address else address


def _displace(candidates: Iterable[Arrival]) -> bool:
    """Close the one that is worth least; False when none may be closed."""
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
    """End a connection whose TLS has not begun; who reads from it sees its end."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
