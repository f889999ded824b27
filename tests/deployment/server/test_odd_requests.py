"""No path, header or body causes an internal error of the door or the page.

At b8a6c4d, a NUL byte in a path of the door raised an exception in httpx and a 500 with a traceback in the log, as
did a header that is not ASCII, and a path of the page that is not text.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fedaigc.deployment.page.app import page_app
from fedaigc.deployment.page.guard import Guard
from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server import door as proxy
from fedaigc.device.home.home import Home

ANY = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def started(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> threading.Thread:
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    return thread


@pytest.fixture(scope="module")
def door() -> Iterator[int]:
    """The port of a door in front of a server that answers 200 to everything."""
    behind, port = free_port(), free_port()
    app = Starlette(
        routes=[Route("/{path:path}", lambda _: PlainTextResponse("here"), methods=["GET", "POST"])]
    )
    upstream = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=behind, log_level="critical"))
    url, sockets = f"http://127.0.0.1:{behind}", None
    if hasattr(proxy, "door_server"):
        server, sockets = proxy.door_server(url, None, "127.0.0.1", port)
    else:
        config = uvicorn.Config(proxy.door(url, None), host="127.0.0.1", port=port, log_level="critical")
        server = uvicorn.Server(config)
    threads = [started(upstream), started(server, sockets)]
    yield port
    server.should_exit = upstream.should_exit = True
    for thread in threads:
        thread.join(20)


def status(port: int, target: bytes, header: bytes = b"1") -> int:
    """Return the status of the reply to a raw request, or 0 if the connection just ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"POST " + target + b" HTTP/1.1\r\nhost: a\r\nflwr-node: " + header + b"\r\n"
            b"content-length: 2\r\nconnection: close\r\n\r\nhi"
        )
        reply = b""
        while part := connection.recv(4096):
            reply += part
    return int(reply.split()[1]) if reply else 0


@ANY
@given(tail=st.binary(max_size=40))
@example(tail=b"%00")
@example(tail=b"%00/../..")
@example(tail=b"%2e%2e/%2e%2e/control/start-run")
@example(tail=b"%0d%0a")
@example(tail=b"%ff%fe")
@example(tail=b"?a=%00&a=%ff")
@example(tail=b"pull-messages?x=%00")
def test_no_path_is_an_error_of_the_door(door: int, tail: bytes) -> None:
    # a blank or the end of a line would be another request
    target = b"/v1/fleet/" + bytes(byte for byte in tail if byte > 32)
    assert status(door, target) in (0, 200, 400, 404)


@pytest.mark.parametrize("value", [b"\xe9", b"\xff\xfe", "é€".encode(), b"a\tb", b"", b"a" * 9000])
def test_no_header_is_an_error_of_the_door(door: int, value: bytes) -> None:
    assert status(door, b"/v1/fleet/pull-messages", value) in (200, 400)


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any) -> Guard:
    home = Home.open(tmp_path_factory.mktemp("page") / "home", 1)
    return page_app(home, lambda: {"client": 0, "busy": False}, token="token", port=1234)


def page_status(page: Guard, path: str, method: str = "GET", body: bytes = b"", kind: bytes = b"") -> int:
    """Return the status of the page's reply to a path that is passed on as the server does."""
    replies: list[Any] = []

    async def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            replies.append(message)

        headers = [(b"host", b"127.0.0.1:1234"), (b"content-type", kind)]
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
        }
        scope |= {"method": method, "path": path, "raw_path": b"", "query_string": b"", "root_path": ""}
        scope |= {"scheme": "http", "headers": headers, "client": ("127.0.0.1", 1), "server": None}
        await page(scope, receive, send)

    asyncio.run(ask())
    return int(replies[0]["status"])


PATHS = st.one_of(
    st.text(st.characters(codec=None), max_size=30),
    st.text("/0123456789abcdef.png\0\n\udcff", max_size=40).map(lambda text: f"pictures/{text}"),
)


@ANY
@given(path=PATHS, method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "X"]))
@example(path="\0", method="GET")
@example(path="pictures/\0.png", method="GET")
@example(path="\udcff", method="GET")
@example(path="pictures/0123456789abcdef/" + "9" * 5000 + ".png", method="GET")
def test_no_path_is_an_error_of_the_page(page: Guard, path: str, method: str) -> None:
    assert page_status(page, f"/token/{path}", method) < 500
    assert page_status(page, f"/{path}", method) < 500


@ANY
@given(
    body=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.floats() | st.text(st.characters(codec=None)), st.lists, max_leaves=5
        ).map(lambda value: json.dumps({"text": value}).encode()),
    ),
    kind=st.sampled_from([b"application/json", b"text/plain", b"application/json; charset=\xff"]),
)
@example(body=b"[" * 60000, kind=b"application/json")
@example(body=b'{"text":' + b"1" * 60000 + b"}", kind=b"application/json")
@example(body=b'{"text":"\\u0000\\ud800"}', kind=b"application/json")
def test_no_body_is_an_error_of_the_page(page: Guard, body: bytes, kind: bytes) -> None:
    assert page_status(page, "/token/prompts", "POST", body, kind) < 500
