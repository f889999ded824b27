"""Sockets that accept or refuse each connection before reading from it, by the user at its other end.

Anyone who reaches a SuperLink's port can submit a run, which is code that executes as the SuperLink's user,
and a loopback port is open to every user of the machine. The kernel knows which user opened the other end of
such a connection, so no secret is needed. Flower itself puts the token of a ServerApp on a command line,
where everyone can read it.
"""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# the kernel's tables of the connections of this network namespace
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED = b"01"
_BACKLOG = 512
_IN_A_ROW = 16
# SO_LINGER: closes at once and leaves nothing in the kernel's tables
_RESET = struct.pack("ii", 1, 0)

Admits = Callable[[socket.socket, Any], bool]


class DecidingListener(socket.socket):
    """A listening socket that accepts only connections for which `admits(connection, address)` is true.

    It is meant for the event loop of asyncio, which treats a refusal as a connection aborted by its peer.

    Attributes:
        admits: Decides on each connection.
    """

    admits: Admits
    _in_a_row = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next connection.

        Raises:
            ConnectionAbortedError: If the connection is refused.
            BlockingIOError: As if no connection were pending, after several in a row. The loop then reads
                from those first, so that later connections displace none before its data was read.
        """
        self._in_a_row = (self._in_a_row + 1) % _IN_A_ROW
        if self._in_a_row == 0:
            raise BlockingIOError("others first")
        connection, address = super().accept()
        if self.admits(connection, address):
            return connection, address
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.close()
        raise ConnectionAbortedError("refused")


def listeners(host: str, port: int, admits: Admits) -> list[socket.socket]:
    """Open a listener on every address of a host.

    Args:
        host: Name or address.
        port: Port.
        admits: Decides on each connection.

    Raises:
        OSError: If listening on one of the addresses fails.
    """
    found: list[socket.socket] = []
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            listener = DecidingListener(family, kind, protocol)
            found.append(listener)
            listener.admits = admits
            # after a quick restart the port may still be in TIME_WAIT
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
    except OSError:
        for opened in found:
            opened.close()
        raise
    return found


def users_are_known() -> bool:
    """Return whether the system reports the user of a connection; Linux does."""
    return TABLES[0].exists()


def is_of_own_user(connection: socket.socket, address: Any = None) -> bool:
    """Return whether the peer of a connection within this machine belongs to the user of this process."""
    return user_of_peer(connection) == os.geteuid()


def user_of_peer(connection: socket.socket) -> int | None:
    """Return the user id of the peer of an IPv4 connection within this machine.

    Returns:
        The user id; None if no process has the other end open. A connection that its peer has already closed
        shows no user and gives None too.
    """
    try:
        ours, theirs = connection.getsockname(), connection.getpeername()
    except OSError:
        return None
    # read twice: while other connections open and close, the kernel may skip an entry
    for table, mapped in 2 * ((TABLES[0], b""), (TABLES[1], b"\0" * 10 + b"\xff" * 2)):
        line = _line(table, f"{_written(theirs, mapped)} {_written(ours, mapped)} ".encode())
        # fields: local and remote address, state, queues, timer, retransmissions, user
        if line is not None:
            return int(line[6]) if line[2] == _ESTABLISHED else None
    return None


def _line(table: Path, start: bytes) -> list[bytes] | None:
    with contextlib.suppress(OSError):
        content = table.read_bytes()
        at = content.find(b" " + start)
        if at >= 0:
            return content[at : content.find(b"\n", at)].split()
    return None


def _written(address: tuple[str, int], prefix: bytes) -> str:
    """Format an IPv4 address as the kernel does: 32-bit words in the machine's byte order, then the port."""
    packed = prefix + socket.inet_aton(address[0])
    return "".join(f"{word:08X}" for word in _words(packed)) + f":{address[1]:04X}"


def _words(packed: bytes) -> Iterator[int]:
    for at in range(0, len(packed), 4):
        yield int.from_bytes(packed[at : at + 4], sys.byteorder)
