"""Connections of one device to the others of its cluster: it opens one to each, and each opens one to it.

A connection carries frames in one direction. One that ends is opened again, until the round ends here.
"""

import queue
import select
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from itertools import count
from types import TracebackType
from typing import Any

from fedaigc.bounds import MAX_CLUSTER, MAX_CLUSTER_FRAMES
from fedaigc.deployment.peer.frames import Frames, PeerGone, PeerMistake, connected_to
from fedaigc.deployment.peer.paired import Card, Peers
from fedaigc.deployment.peer.tls import secured_from, secured_to
from fedaigc.errors import Error

_HANDSHAKE_S = 10.0
_RETRY_S = 0.5
_POLL_S = 0.2
# of a connection that says nothing; the round has an end of its own
_SILENCE_S = 24 * 3600.0
_WAITING_EVENTS = 64
Find = Callable[[Card], Sequence[str]]


def nowhere(card: Card) -> Sequence[str]:
    """Find no device."""
    return ()


@dataclass(frozen=True)
class Link:
    """Another device of the cluster.

    Attributes:
        name: The owner's name for it.
        card: Its keys.
        address: Its host:port; "" for what it announces, see `peer.discovery`.
    """

    name: str
    card: Card
    address: str


class Trouble(Enum):
    """What became of the last connection to another device."""

    NOBODY = auto()
    """Nobody answers at its address."""
    STRANGER = auto()
    """Another one answers there."""
    ENDED = auto()
    """It was made, and has ended."""


@dataclass(frozen=True)
class Opened:
    """This device's connection to another one was made, the first one or again."""

    device: str


@dataclass(frozen=True)
class Heard:
    """Another device's connection to this one was made."""

    device: str


@dataclass(frozen=True)
class Frame:
    """A frame arrived."""

    device: str
    data: bytes


@dataclass(frozen=True)
class Ended:
    """The last connection of another device to this one has ended."""

    device: str


@dataclass(frozen=True)
class Refused:
    """Nobody listens where another device was to be, and it has no connection to this one."""

    device: str


class Links:
    """The connections, while the context is entered.

    Args:
        peers: The keys of this device.
        links: The other devices, by fingerprint.
        listening: A socket that listens.
        frame_s: Seconds that another device may take to read a frame.
        most: Largest size of a frame.
        find: Returns the addresses at which a device announces itself now.

    Attributes:
        troubles: What became of the last connection to a device, and the error; that one ended is kept.
    """

    def __init__(
        self,
        peers: Peers,
        links: Mapping[str, Link],
        listening: socket.socket,
        frame_s: float,
        most: int,
        find: Find = nowhere,
    ) -> None:
        self._peers, self._links, self._listening = peers, links, listening
        self._frame_s, self._most, self._find = frame_s, most, find
        self.troubles: dict[str, tuple[Trouble, str]] = {}
        self._events: queue.Queue[Any] = queue.Queue(_WAITING_EVENTS)
        self._outboxes: dict[str, queue.SimpleQueue[bytes]] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[ssl.SSLSocket, str] = {}
        self._frames: Counter[str] = Counter()
        self._senders = {
            device: threading.Thread(target=self._opening, args=(device, link), daemon=True)
            for device, link in links.items()
        }

    def __enter__(self) -> "Links":
        threading.Thread(target=self._accepting, daemon=True).start()
        for sender in self._senders.values():
            sender.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left to send, and end all connections."""
        self._closing.set()
        for device, sender in self._senders.items():
            # one without a connection has nothing to send, and may still wait for a device that no longer accepts
            if device in self._outboxes:
                sender.join(self._frame_s)
        with self._lock:
            for secured in self._open:
                # one that has ended already is not connected
                with suppress(OSError):
                    socket.socket.shutdown(secured, socket.SHUT_RDWR)

    def send(self, device: str, data: bytes) -> None:
        """Send a frame; nothing is sent if there is no connection to the device now."""
        outbox = self._outboxes.get(device)
        if outbox is not None:
            outbox.put(data)

    def put(self, event: Any) -> None:
        """Add an event, unless the round has ended here."""
        while not self._closing.is_set():
            try:
                self._events.put(event, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def next(self, patience_s: float) -> Any:
        """Return the next event: Opened, Heard, Frame, Ended, Refused, or one of `put`; None if none comes in time."""
        try:
            return self._events.get(timeout=patience_s)
        except queue.Empty:
            return None

    def _opening(self, device: str, link: Link) -> None:
        for attempt in count():
            if self._closing.is_set():
                return
            trouble = Trouble.NOBODY
            try:
                with connected_to(self._address(link, attempt), "--with", _HANDSHAKE_S) as connection:
                    trouble = Trouble.STRANGER
                    with closing(secured_to(connection, self._peers, link.card, _HANDSHAKE_S)) as secured:
                        trouble = Trouble.ENDED
                        if self.troubles.get(device, (trouble,))[0] is not Trouble.ENDED:
                            del self.troubles[device]
                        outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
                        self._outboxes[device] = outbox
                        self.put(Opened(device))
                        self._send_all(secured, outbox)
            except (Error, OSError) as error:
                self.troubles[device] = trouble, str(error)
                # the device is not there yet, or no longer; it is told everything when it is
                with self._lock:
                    connected = device in self._open.values()
                if isinstance(error.__cause__, ConnectionRefusedError) and not connected:
                    self.put(Refused(device))
            finally:
                self._outboxes.pop(device, None)
            self._closing.wait(_RETRY_S)

    def _address(self, link: Link, attempt: int) -> str:
        found = [link.address] if link.address else self._find(link.card)
        if not found:
            raise PeerGone(f"{link.name} announces itself nowhere on this network")
        # a machine may announce addresses at which it is not reached from here
        return found[attempt % len(found)]

    def _send_all(self, secured: ssl.SSLSocket, outbox: "queue.SimpleQueue[bytes]") -> None:
        frames = Frames(secured, self._frame_s)
        while True:
            try:
                frames.send(outbox.get(timeout=_POLL_S))
            except queue.Empty:
                if self._closing.is_set():
                    return
                # nothing comes this way but the end of the connection
                if select.select([secured], [], [], 0)[0]:
                    raise PeerGone("the other device ended the connection") from None

    def _accepting(self) -> None:
        # some that ended are not noticed yet
        free = threading.Semaphore(2 * MAX_CLUSTER)
        self._listening.settimeout(_POLL_S)
        while not self._closing.is_set():
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if not free.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._answered, args=(connection, free), daemon=True).start()

    def _answered(self, connection: socket.socket, free: threading.Semaphore) -> None:
        try:
            with connection:
                secured, _, card = secured_from(connection, self._peers, _HANDSHAKE_S)
                with closing(secured):
                    if card.fingerprint in self._links:
                        self._receive_all(secured, card.fingerprint)
        except (Error, OSError):
            # whoever it was, it has no more to say
            pass
        finally:
            free.release()

    def _receive_all(self, secured: ssl.SSLSocket, device: str) -> None:
        with self._lock:
            self._open[secured] = device
        self.put(Heard(device))
        try:
            frames = Frames(secured, self._frame_s)
            while not self._closing.is_set():
                data = frames.receive(self._most, _SILENCE_S)
                self._frames[device] += 1
                if self._frames[device] > MAX_CLUSTER_FRAMES:
                    raise PeerMistake("the other device sends too much")
                self.put(Frame(device, data))
        finally:
            with self._lock:
                del self._open[secured]
                last = device not in self._open.values()
            if last:
                self.put(Ended(device))
