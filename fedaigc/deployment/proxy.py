"""The door of a server: it lets through what nodes need of Flower's SuperLink, and nothing else.

Whoever reaches a SuperLink's port can submit a run, which is code for its server. Devices reach this door
only, and through it the paths under /v1/fleet/.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

FLEET = "/v1/fleet/"
MAX_BODY_BYTES = 16 << 20
_TIMEOUT_S = 120.0
# of one connection alone, or set anew on the other side
_NOT_PASSED = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "upgrade"}
)


def door(upstream: str, trusted: ssl.SSLContext | None) -> Starlette:
    """The application. upstream: https://host:port of the SuperLink; trusted: what its certificate must be
    signed by, None for http. A body beyond `MAX_BODY_BYTES` is refused before it is read to its end (Flower
    sends large messages in parts of 5 MB).
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        verify = trusted if trusted is not None else False
        async with httpx.AsyncClient(base_url=upstream, verify=verify, timeout=_TIMEOUT_S) as client:
            app.state.client = client
            yield

    async def pass_on(request: Request) -> Response:
        path = request.url.path
        # no dots: what a path means must not depend on who reads it
        if not path.startswith(FLEET) or ".." in path or "%" in path or "//" in path:
            return PlainTextResponse("there is nothing here for devices\n", status_code=404)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                return PlainTextResponse("this is too large\n", status_code=413)
        headers = [(k, v) for k, v in request.headers.items() if k not in _NOT_PASSED]
        try:
            reply = await request.app.state.client.request(
                request.method, path, content=bytes(body), headers=headers, params=request.query_params
            )
        except httpx.HTTPError:
            return PlainTextResponse("the server is not there\n", status_code=503)
        passed = {
            k: v for k, v in reply.headers.items() if k.lower() not in _NOT_PASSED | {"content-encoding"}
        }
        return Response(reply.content, status_code=reply.status_code, headers=passed)

    route = Route("/{path:path}", pass_on, methods=["GET", "POST", "PUT", "DELETE"])
    return Starlette(routes=[route], lifespan=lifespan)
