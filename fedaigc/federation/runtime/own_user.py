"""Sockets that decide on each connection before anything of it is read, and who holds its other end.

Whoever reaches a SuperLink's port can submit a run, which is code for the user that it runs as; its port on
the loopback is open to every user of the machine. The kernel knows who made the other end of such a
connection, so no secret has to be kept: Flower itself puts the token of a ServerApp on a command line, where
everybody can read it.
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
# SO_LINGER: closed at once, and nothing of it stays in the kernel's tables
_RESET = struct.pack("ii", 1, 0)

Admits = Callable[[socket.socket, Any], bool]


class DecidingListener(socket.socket):
    """A listening socket whose connections exist only where `admits(connection, address)` says so.

    For the event loop of asyncio, which takes a refusal as a connection that its other end gave up.
    """

    admits: Admits
    _in_a_row = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. ConnectionAbortedError where it is refused.

        BlockingIOError, as where there is none, after some in a row: the loop is to read from those first, so
        that none is displaced by later ones before what it says was looked at.
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
    """A listener on every address of `host`. OSError when one of them cannot be had."""
    found: list[socket.socket] = []
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            listener = DecidingListener(family, kind, protocol)
            found.append(listener)
            listener.admits = admits
            # started again at once, the port of the last one may be in TIME_WAIT
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
    """Whether the system tells whose a connection is; Linux does."""
    return TABLES[0].exists()


def is_of_own_user(connection: socket.socket, address: Any = None) -> bool:
    """Whether the other end of a connection within this machine belongs to the user of this process."""
    return user_of_peer(connection) == os.geteuid()


def user_of_peer(connection: socket.socket) -> int | None:
    """The user id of the other end of an IPv4 connection within this machine; None when nobody has it open.

    A connection that its other end has closed already shows no user, and is nobody's here.
    """
    try:
        ours, theirs = connection.getsockname(), connection.getpeername()
    except OSError:
        return None
    # twice: while others open and close connections, the kernel may pass one over
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
    """An IPv4 address as the kernel writes it: words of 32 bits in the machine's order, the port after it."""
    packed = prefix + socket.inet_aton(address[0])
    return "".join(f"{word:08X}" for word in _words(packed)) + f":{address[1]:04X}"


def _words(packed: bytes) -> Iterator[int]:
    for at in range(0, len(packed), 4):
        yield int.from_bytes(packed[at : at + 4], sys.byteorder)
