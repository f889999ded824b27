"""The door lets only the requests of nodes through, and keys and certificates have the required properties."""

import http.server
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from fedaigc.bounds import MAX_BODY_BYTES
from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server.door import door
from fedaigc.deployment.server.keys import (
    AUTHORITY,
    DEVICE_KEY,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    make_device_key,
    make_server_keys,
)
from fedaigc.errors import UserError


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the path and the length of the request."""

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        text = f"{self.path} {length} {self.headers.get('flwr-node')}".encode()
        self.rfile.read(length)
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def upstream() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@contextmanager
def serving(app: Starlette) -> Iterator[httpx.Client]:
    """The door as the server runs it, and a client."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def test_the_door_opens_to_nodes_only(upstream: str) -> None:
    with serving(door(upstream, None)) as client:
        reply = client.post("/v1/fleet/pull-messages", content=b"12345", headers={"flwr-node": "7"})
        assert reply.text == "/v1/fleet/pull-messages 5 7"
        for path in (
            "/v1/control/start-run",
            "/v1/control/register-node",
            "/v1/runtime/acquire-task",
            "/health",
            "/",
            "/v1/fleet/../control/start-run",
            "/v1/fleet/%2e%2e/control/start-run",
            "//v1/fleet/pull-messages",
        ):
            assert client.post(path, content=b"x").status_code == 404, path
        too_much = client.post("/v1/fleet/push-object", content=b"\0" * (MAX_BODY_BYTES + 1))
        assert too_much.status_code == 413


def test_a_superlink_that_is_away_is_told() -> None:
    with serving(door("http://127.0.0.1:9", None)) as client:
        assert client.post("/v1/fleet/pull-messages", content=b"").status_code == 503


def test_devices_trust_their_own_server_and_no_other(tmp_path: Path) -> None:
    make_server_keys(tmp_path / "a", ["127.0.0.1"])
    make_server_keys(tmp_path / "b", ["127.0.0.1"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "a" / SERVER_CERTIFICATE, tmp_path / "a" / SERVER_KEY)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"https://127.0.0.1:{server.server_port}/x"
        own, other = (
            ssl.create_default_context(cafile=str(tmp_path / name / AUTHORITY)) for name in ("a", "b")
        )
        assert httpx.post(url, content=b"1", verify=own).text.startswith("/x 1")
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.post(url, content=b"1", verify=other)
    finally:
        server.shutdown()
        thread.join()


def test_private_keys_are_their_owners_and_are_not_replaced(tmp_path: Path) -> None:
    make_server_keys(tmp_path, ["edge.example"])
    public = make_device_key(tmp_path / "keys")
    for path in (tmp_path / SERVER_KEY, tmp_path / "keys" / DEVICE_KEY):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ")
    with pytest.raises(UserError, match="already"):
        make_server_keys(tmp_path, ["edge.example"])
    with pytest.raises(UserError, match="a different device"):
        make_device_key(tmp_path / "keys")
