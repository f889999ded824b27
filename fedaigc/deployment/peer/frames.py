"""Frames between two devices: a length and bytes, both bounded, and no wait without an end."""

import ipaddress
import socket
import struct
import time

from fedaigc.deployment.hosts import host_and_port, host_of
from fedaigc.errors import Error, UserError

_LENGTH = struct.Struct("!I")
_PART = 1 << 16


class PeerGone(Error):
    """The other device ended the connection, or did not answer in time."""


class PeerMistake(Error, ValueError):
    """The other device sent something that none of this version sends."""


def listening_at(address: str, what: str) -> socket.socket:
    """Return a socket that listens.

    Args:
        address: host:port of this machine.
        what: What the address is, for the message, such as "--listen".

    Raises:
        UserError: If it is no such address, or cannot be used.
    """
    address = host_and_port(address, what)
    host, port = host_of(address), int(address.rpartition(":")[2])
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=8
        )
    except OSError as error:
        raise UserError(f"{what} {address} cannot be used: {error.strerror or error}") from None


def is_own(address: str, listening: socket.socket) -> bool:
    """Return whether who connects to an address reaches a socket of this machine that listens.

    Args:
        address: host:port.
        listening: The socket.
    """
    at = listening.getsockname()
    if int(address.rpartition(":")[2]) != at[1]:
        return False
    try:
        found = socket.getaddrinfo(host_of(address), None, listening.family, socket.SOCK_STREAM)
    except OSError:
        # a name that nobody has
        return False
    hosts = {str(where[0]) for *_, where in found}
    everywhere = not any(ipaddress.ip_address(at[0]).packed)
    return any(_is_local(host, listening.family) if everywhere else host == at[0] for host in hosts)


def _is_local(host: str, family: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as trying:
        try:
            trying.bind((host, 0))
        except OSError:
            return False
    return True


def connected_to(address: str, what: str, patience_s: float) -> socket.socket:
    """Return a connection to host:port.

    Raises:
        UserError: If `address` is something else.
        PeerGone: If nobody listens there.
    """
    address = host_and_port(address, what)
    try:
        return socket.create_connection((host_of(address), int(address.rpartition(":")[2])), patience_s)
    except OSError as error:
        raise PeerGone(f"no device answers at {address}: {error.strerror or error}") from error


class Frames:
    """One connection as frames.

    Args:
        connection: A connected socket, also of TLS.
        patience_s: Seconds for each frame, however slowly its bytes come.
    """

    def __init__(self, connection: socket.socket, patience_s: float) -> None:
        self._connection = connection
        self._patience_s = patience_s

    def send(self, data: bytes) -> None:
        """Send a frame.

        Raises:
            PeerGone: If the connection has ended, or the other device does not read.
        """
        try:
            # for `sendall`, the timeout holds for the whole
            self._connection.settimeout(self._patience_s)
            self._connection.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise PeerGone(f"the connection ended: {error}") from error

    def receive(self, most: int, patience_s: float | None = None) -> bytes:
        """Receive a frame.

        Args:
            most: Largest length in bytes.
            patience_s: Seconds in place of those of the connection.

        Raises:
            PeerGone: If the connection has ended, or the frame is not complete in time.
            PeerMistake: If the frame is longer.
        """
        until = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, until))
        if length > most:
            raise PeerMistake(f"a frame of {length} bytes: expected at most {most}")
        return self._read(length, until)

    def _read(self, length: int, until: float) -> bytes:
        parts, missing = [], length
        while missing:
            left = until - time.monotonic()
            if left <= 0:
                raise PeerGone("the other device does not answer")
            try:
                self._connection.settimeout(left)
                part = self._connection.recv(min(missing, _PART))
            except TimeoutError:
                continue
            except OSError as error:
                raise PeerGone(f"the connection ended: {error}") from error
            if not part:
                raise PeerGone("the other device ended the connection")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)
