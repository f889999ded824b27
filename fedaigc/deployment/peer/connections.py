"""Connections between paired devices: one opens it, the other listens."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager

from fedaigc.bounds import MAX_PEER_CONNECTIONS
from fedaigc.deployment.hosts import host_and_port
from fedaigc.deployment.peer.discovery import Finder
from fedaigc.deployment.peer.frames import Frames, PeerGone, connected_to
from fedaigc.deployment.peer.paired import Card
from fedaigc.deployment.peer.sharing import Outcome, Reached, Sharer
from fedaigc.deployment.peer.tls import secured_from, secured_to
from fedaigc.device.home.home import note_error
from fedaigc.errors import Error

_HANDSHAKE_S = 10.0
_POLL_S = 0.5


def calling(sharer: Sharer, name: str, address: str) -> AbstractContextManager[Reached]:
    """Return what opens a connection to a paired device; entering it raises PeerGone if that does not answer.

    Args:
        sharer: This device.
        name: The owner's name for the other one.
        address: Its host:port.

    Raises:
        UserError: If no device of this name is paired, or the address is none.
    """
    return _called(sharer, name, sharer.peers.get(name), host_and_port(address, "--to"))


def seeking(sharer: Sharer, name: str, patience_s: float) -> AbstractContextManager[Reached]:
    """Return what finds a paired device by its announcement, and opens a connection to it.

    Entering it raises PeerGone if the device announces itself nowhere, or does not answer.

    Args:
        sharer: This device.
        name: The owner's name for the other one.
        patience_s: Seconds to wait for an announcement.

    Raises:
        UserError: If no device of this name is paired.
        MissingExtra: If `zeroconf` is not installed.
    """
    return _sought(sharer, name, sharer.peers.get(name), Finder(sharer.peers), patience_s)


@contextmanager
def _sought(sharer: Sharer, name: str, card: Card, finder: Finder, patience_s: float) -> Iterator[Reached]:
    with finder:
        addresses = finder.wait(card, patience_s)
    failure: Error = PeerGone(f"{name} announces itself nowhere on this network")
    with ExitStack() as stack:
        reached = None
        # a machine may announce addresses at which it is not reached from here
        for address in addresses:
            try:
                reached = stack.enter_context(_called(sharer, name, card, address))
                break
            except PeerGone as error:
                failure = error
        if reached is None:
            raise failure
        yield reached


@contextmanager
def _called(sharer: Sharer, name: str, card: Card, address: str) -> Iterator[Reached]:
    with (
        connected_to(address, "--to", _HANDSHAKE_S) as connection,
        closing(secured_to(connection, sharer.peers, card, _HANDSHAKE_S)) as secured,
    ):
        yield Reached(Frames(secured, sharer.frame_s), name, card)


@contextmanager
def answering(sharer: Sharer, connection: socket.socket) -> Iterator[Reached]:
    """Accept the connection of a paired device; PeerGone if it is none."""
    with connection:
        secured, name, card = secured_from(connection, sharer.peers, _HANDSHAKE_S)
        with closing(secured):
            yield Reached(Frames(secured, sharer.frame_s), name, card)


def listen(
    sharer: Sharer, listening: socket.socket, ending: threading.Event, said: Callable[[Outcome], object]
) -> None:
    """Answer the paired devices that call, until `ending` is set.

    Args:
        sharer: This device.
        listening: A socket that listens.
        ending: Ends the loop; a sharing in progress goes on in its thread.
        said: Called with the outcome of each call of a paired device, in the thread of the call.
    """
    free = threading.Semaphore(MAX_PEER_CONNECTIONS)
    listening.settimeout(_POLL_S)
    while not ending.is_set():
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        if not free.acquire(blocking=False):
            connection.close()
            continue
        threading.Thread(target=_answered, args=(sharer, connection, free, said), daemon=True).start()


def _answered(
    sharer: Sharer, connection: socket.socket, free: threading.Semaphore, said: Callable[[Outcome], object]
) -> None:
    try:
        outcome = sharer.answer(answering(sharer, connection))
        if outcome.peer:
            said(outcome)
    except Exception as error:
        # what the picture itself runs into: the owner reads it, and the next call is answered
        note_error(sharer.home, f"drawing after a sharing: {type(error).__name__}: {error}\n")
    finally:
        free.release()
