"""The door of a server: a reverse proxy that passes on what nodes need of Flower's SuperLink, nothing else.

Anyone who reaches a SuperLink's port can submit a run, which is code for its server. Devices reach only this
door, and through it the paths under /v1/fleet/. No peer can block it: headers, bodies and readers have time
limits, and the numbers of connections and of bytes of bodies in flight are bounded (`Admission`).
"""

import asyncio
import re
import socket
import ssl
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from fedaigc.bounds import MAX_BODY_BYTES
from fedaigc.deployment.server.admission import Admission, Arrival
from fedaigc.deployment.server.clocks import Clocks, told
from fedaigc.deployment.server.door_protocol import door_protocol
from fedaigc.deployment.server.node_key import KnownKeys
from fedaigc.federation.runtime.own_user import listeners

# no dots and no escapes: all parsers must agree on the meaning of a path
_PATHS = re.compile(r"/v1/fleet/[a-z0-9-]+")
_TIMEOUT_S = 120.0
# longest time that a body waits for others to be answered
_ROOM_S = 60.0
_ROOM_POLL_S = 0.05
_SWEEP_S = 1
_TLS_BUFFER_BYTES = 1 << 16
# headers of one connection only, or set again for the other one
_NOT_PASSED = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "upgrade"})


class _Refused(Exception):
    """A body that is not passed on completely."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def door(
    upstream: str,
    trusted: ssl.SSLContext | None,
    admission: Admission | None = None,
    clocks: Clocks | None = None,
) -> Starlette:
    """Return the application of a door.

    Bodies and replies are streamed through. A body beyond `MAX_BODY_BYTES` is refused before it is read
    completely (Flower sends large messages in parts of 5 MB).

    Args:
        upstream: https://host:port of the SuperLink.
        trusted: Context that verifies the SuperLink's certificate; None for http.
        admission: Connections of the server that serves the application; None: a new one.
        clocks: Where the clocks of devices are compared; None: a new one, which keeps nothing.
    """
    known, keys = admission if admission is not None else Admission(), KnownKeys()
    times = clocks if clocks is not None else Clocks()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        verify = trusted if trusted is not None else False
        # one for each connection to the door, whose number is already bounded
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        async with httpx.AsyncClient(
            base_url=upstream,
            verify=verify,
            timeout=_TIMEOUT_S,
            limits=limits,
            # the SuperLink is on this machine: no proxy of the environment leads to it
            trust_env=False,
        ) as client:
            app.state.client = client
            yield

    async def pass_on(request: Request) -> Response:
        path: str = request.scope["path"]
        if not _PATHS.fullmatch(path):
            return PlainTextResponse("not found\n", status_code=404)
        ahead_s = times.refused(request.headers)
        if ahead_s is not None:
            # with 401, as Flower replies, a SuperNode ends without a reason in its log
            return JSONResponse({"code": 0, "detail": told(ahead_s)}, status_code=400)
        arrival = known.of(request.client)
        arrival.proven |= keys.signed(request.headers)
        client: httpx.AsyncClient = request.app.state.client
        headers = [(k, v) for k, v in request.headers.raw if k.decode("latin-1") not in _NOT_PASSED]
        framed = {"content-length", "transfer-encoding"} & set(request.headers)
        if "transfer-encoding" in framed:
            headers = [(k, v) for k, v in headers if k != b"content-length"]
        try:
            # a body without a stated length counts as the longest one allowed
            length = MAX_BODY_BYTES if "transfer-encoding" in framed else _length(request)
            if length > MAX_BODY_BYTES:
                raise _Refused(413, "the request body is too large")
            if arrival.proven and length:
                await _room(known, arrival, length)
            content = _body(request, known, arrival) if framed else None
            asked = client.build_request(
                request.method, path, content=content, headers=headers, params=request.query_params
            )
            reply = await client.send(asked, stream=True)
        except _Refused as refusal:
            return PlainTextResponse(f"{refusal}\n", status_code=refusal.status)
        except (httpx.HTTPError, ClientDisconnect):
            return PlainTextResponse("the server is unavailable\n", status_code=503)
        finally:
            arrival.body_bytes = 0
        if reply.is_success:
            arrival.proven = True
            keys.add(request.headers)
        passed = {k: v for k, v in reply.headers.items() if k.lower() not in _NOT_PASSED}
        return StreamingResponse(
            reply.aiter_raw(), reply.status_code, passed, background=BackgroundTask(reply.aclose)
        )

    route = Route("/{path:path}", pass_on, methods=["GET", "POST", "PUT", "DELETE"])
    return Starlette(routes=[route], lifespan=lifespan)


def _length(request: Request) -> int:
    return int(request.headers.get("content-length", 0))


async def _room(admission: Admission, arrival: Arrival, length: int) -> None:
    """Wait for room for a body of `length` bytes. _Refused if there is none within `_ROOM_S`."""
    until = time.monotonic() + _ROOM_S
    arrival.waits = True
    try:
        while not admission.reserves(arrival, length):
            if time.monotonic() > until:
                raise _Refused(503, "the server is busy: try again")
            await asyncio.sleep(_ROOM_POLL_S)
    finally:
        arrival.waits = False
        arrival.since = time.monotonic()


async def _body(request: Request, admission: Admission, arrival: Arrival) -> AsyncIterator[bytes]:
    """Yield the body in parts. _Refused beyond the bounds."""
    length = 0
    async for part in request.stream():
        length += len(part)
        if length > MAX_BODY_BYTES:
            raise _Refused(413, "the request body is too large")
        if not (arrival.proven or admission.takes(arrival, len(part))):
            raise _Refused(503, "the server is busy: try again")
        yield part


def door_server(
    upstream: str,
    trusted: ssl.SSLContext | None,
    host: str,
    port: int,
    certificate: tuple[Path, Path] | None = None,
    clocks: Clocks | None = None,
) -> tuple[uvicorn.Server, list[socket.socket]]:
    """Create the server of a door.

    Args:
        upstream: https://host:port of the SuperLink.
        trusted: Context that verifies the SuperLink's certificate; None for http.
        host: Address to listen on.
        port: Port to listen on.
        certificate: The door's certificate and its key; None for http.
        clocks: See `door`.

    Returns:
        The server, and the sockets to run it with.

    Raises:
        OSError: If listening there fails.
    """
    # by default 256 KB per connection from its first byte on; a TLS record has at most 16 KB
    SSLProtocol.max_size = _TLS_BUFFER_BYTES
    admission = Admission()
    settings: dict[str, Any] = {}
    if certificate is not None:
        settings = {"ssl_certfile": str(certificate[0]), "ssl_keyfile": str(certificate[1])}

    async def sweep() -> None:
        admission.sweep()

    config = uvicorn.Config(
        door(upstream, trusted, admission, clocks),
        log_level="warning",
        access_log=False,
        # the listener decides on connections in `accept`, which uvloop does not call
        loop="asyncio",
        http=door_protocol(admission),
        ws="none",
        # otherwise a header could make a connection count for another address
        proxy_headers=False,
        callback_notify=sweep,
        timeout_notify=_SWEEP_S,
        **settings,
    )
    return uvicorn.Server(config), listeners(host, port, admission.admits)
