"""A recording proxy between the devices and the door of a server.

The proxy has the server's certificate and key, which belong to the tests. It can therefore record the unmodified
processes with TLS and node keys, and the product needs no mode without TLS.
"""

import asyncio
import contextlib
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server.keys import AUTHORITY, SERVER_CERTIFICATE, SERVER_KEY

_READ_BYTES = 1 << 16
_START = re.compile(rb"(?:(?P<method>[A-Z]+) (?P<target>\S+) HTTP/1\.1|HTTP/1\.1 (?P<status>\d{3})[^\r\n]*)")


class Unreadable(ValueError):
    """Bytes that are not HTTP as the recorder supports it."""


@dataclass
class Connection:
    """The decrypted bytes of one connection. The device sent `sent` and received `received`."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Half:
    """A request or a response. `start` holds its method and target, or its status."""

    start: tuple[str, ...]
    head: bytes
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """A request and its response, with the path of the request."""

    path: str
    status: int
    request: Half
    response: Half


class Recorder:
    """Listens on `port` and forwards everything to the door (see `recording`)."""

    def __init__(self, keys: Path, door: int) -> None:
        self.port = free_port()
        self.connections: list[Connection] = []
        self._door = door
        self._as_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._as_server.load_cert_chain(keys / SERVER_CERTIFICATE, keys / SERVER_KEY)
        self._as_client = ssl.create_default_context(cafile=str(keys / AUTHORITY))

    def exchanges(self) -> Iterator[Exchange]:
        """Yield all complete pairs of request and response. `rest` returns the incomplete ones.

        Raises:
            Unreadable: If bytes are neither a request nor a response.
        """
        for connection in self.connections:
            requests, responses = self._halves(connection)
            # the last request has no response if its device was terminated while it waited
            for request, response in zip(requests, responses, strict=False):
                yield Exchange(request.start[1], int(response.start[0]), request, response)

    def rest(self) -> list[bytes]:
        """Return all bytes outside of complete exchanges: truncated messages and requests without a response."""
        left = []
        for connection in self.connections:
            requests, responses = self._halves(connection)
            left += [request.head + request.body for request in requests[len(responses) :]]
            left += [halves(bytes(data))[1] for data in (connection.sent, connection.received)]
        return [data for data in left if data]

    def num_bytes(self) -> tuple[int, int]:
        """Return the number of bytes from the devices and to the devices, without TLS."""
        return sum(len(c.sent) for c in self.connections), sum(len(c.received) for c in self.connections)

    @staticmethod
    def _halves(connection: Connection) -> tuple[list[Half], list[Half]]:
        return halves(bytes(connection.sent))[0], halves(bytes(connection.received))[0]

    async def serve(self, ready: threading.Event, ending: asyncio.Event) -> None:
        """Forward connections until `ending` is set."""
        server = await asyncio.start_server(self._pass, "127.0.0.1", self.port, ssl=self._as_server)
        ready.set()
        async with server:
            await ending.wait()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = Connection()
        self.connections.append(kept)
        try:
            door = await asyncio.open_connection(
                "127.0.0.1", self._door, ssl=self._as_client, server_hostname="127.0.0.1"
            )
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, door[1], kept.sent), _pump(door[0], writer, kept.received))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while part := await reader.read(_READ_BYTES):
            kept += part
            writer.write(part)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


@contextmanager
def recording(keys: Path, door: int) -> Iterator[Recorder]:
    """Run a recorder in front of a door within the context.

    Args:
        keys: The folder with the server's keys.
        door: The port of the door on this machine.
    """
    recorder = Recorder(keys, door)
    loop = asyncio.new_event_loop()
    ready, ending = threading.Event(), asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(recorder.serve(ready, ending))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()

    thread = threading.Thread(target=run, name="recorder", daemon=True)
    thread.start()
    try:
        assert ready.wait(10), "the recorder does not listen"
        yield recorder
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(10)


def halves(stream: bytes) -> tuple[list[Half], bytes]:
    """Return the requests or responses in one direction of a connection, and the bytes of an incomplete last one.

    Flower and the door send only bodies with a content length and without an encoding.

    Raises:
        Unreadable: If a start line is malformed, or if a body has a transfer or content encoding.
    """
    found = []
    while b"\r\n\r\n" in stream:
        head, _, behind = stream.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        matched = _START.fullmatch(start)
        if matched is None:
            raise Unreadable(f"no HTTP: {start[:60]!r}")
        fields = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)
        }
        if fields.keys() & {b"transfer-encoding", b"content-encoding"}:
            raise Unreadable(f"a body in a coding that is not read: {start[:60]!r}")
        length = int(fields.get(b"content-length", b"0"))
        if len(behind) < length:
            break
        named = tuple(group.decode() for group in matched.groups() if group is not None)
        found.append(Half(named, head, behind[:length]))
        stream = behind[length:]
    return found, stream
