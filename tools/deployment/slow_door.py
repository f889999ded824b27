"""Run a door in front of a substitute for the SuperLink, which also reads whole bodies, as a process for tests.

The argument is the port of the door. Requests with the header `flwr-node: 1` come from a known device.
"""

import sys
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server import door as proxy


async def _answer(request: Request) -> Response:
    try:
        length = len(await request.body())
    except ClientDisconnect:
        return Response(status_code=400)
    known = request.headers.get("flwr-node") == "1"
    return Response(b"\0" * min(length, 1 << 22), status_code=200 if known else 401)


def main() -> None:
    """Serve until the process is killed."""
    port, behind = int(sys.argv[1]), free_port()
    app = Starlette(routes=[Route("/{path:path}", _answer, methods=["GET", "POST"])])
    upstream = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=behind, log_level="error"))
    threading.Thread(target=upstream.run, daemon=True).start()
    while not upstream.started:
        time.sleep(0.02)
    url = f"http://127.0.0.1:{behind}"
    if hasattr(proxy, "door_server"):
        server, sockets = proxy.door_server(url, None, "127.0.0.1", port)
        server.run(sockets=sockets)
    else:
        # how commit b8a6c4d served the door
        uvicorn.run(
            proxy.door(url, None), host="127.0.0.1", port=port, log_level="error", limit_concurrency=512
        )


if __name__ == "__main__":
    main()
