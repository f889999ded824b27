"""Who may open the device's page: its token, the names of this machine, origins, headers and paths."""

import http.client
import socket
import stat

import httpx
import psutil
import pytest

from fedaigc.deployment.page.guard import HEADERS
from fedaigc.deployment.page.serving import PAGE_URL, serving_page
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.errors import UserError
from tests.deployment.page.pages import finished, idle, parts


def test_without_the_token_nothing_is_answered(home: Home, url: str) -> None:
    task_id = finished(home, "an apple on a table")
    port, token = parts(url)
    for wrong in ("", "x", token[:-1], token + "A", token.swapcase(), "é" * len(token)):
        for path in ("", "state.json", "page.js", "page.css", "icon.svg", f"pictures/{task_id}.png", "none"):
            reply = httpx.get(f"http://127.0.0.1:{port}/{wrong}/{path}")
            assert reply.status_code == 403
            assert "apple" not in reply.text
        assert httpx.post(f"http://127.0.0.1:{port}/{wrong}/prompts", json={"text": "x"}).status_code == 403
    for path in ("/", "/favicon.ico", "/state.json", f"/state.json?token={token}", f"//{token}/state.json"):
        assert httpx.get(f"http://127.0.0.1:{port}{path}", cookies={"token": token}).status_code == 403
    assert len(PromptQueue(home).all()) == 1
    for path in ("", "state.json", "page.js", "page.css", "icon.svg", f"pictures/{task_id}.png"):
        assert httpx.get(url + path).status_code == 200


def test_each_start_has_a_token_of_its_own_and_the_address_is_the_owners_while_it_is_served(
    home: Home,
) -> None:
    path = home.root / PAGE_URL
    seen = set()
    for _ in range(2):
        with serving_page(home, idle) as url:
            assert path.read_text() == f"{url}\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            seen.add(parts(url)[1])
        assert not path.exists()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    assert len(seen) == 2
    assert min(map(len, seen)) >= 43  # 32 bytes


def test_another_name_for_this_machine_is_refused(url: str) -> None:
    """A page of a stranger, whose host name resolves to 127.0.0.1, sends its own name as the host."""
    port, token = parts(url)
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", "[::1]", ""):
        assert httpx.get(f"{url}state.json", headers={"host": host}).status_code == 403
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert httpx.get(f"{url}state.json", headers={"host": host}).status_code == 200
    for hosts in ((), (f"127.0.0.1:{port}", "evil.example")):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("GET", f"/{token}/state.json", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status in (400, 403)
        connection.close()


def test_another_origin_can_change_nothing(home: Home, url: str) -> None:
    port, _ = parts(url)
    sent = {"text": "a dog on a bed"}
    for origin in (
        "http://evil.example",
        "null",
        "",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port + 1}",
        f"http://localhost:{port}",  # the page was opened under the other name
    ):
        assert httpx.post(f"{url}prompts", json=sent, headers={"origin": origin}).status_code == 403
    assert PromptQueue(home).all() == []
    own = {"origin": f"http://127.0.0.1:{port}"}
    assert httpx.post(f"{url}prompts", json=sent, headers=own).status_code == 201
    reply = httpx.options(
        f"{url}prompts", headers={"origin": "http://evil.example", "access-control-request-method": "POST"}
    )
    assert reply.status_code == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_every_answer_has_the_headers(home: Home, url: str) -> None:
    finished(home, "an apple on a table")
    (task,) = PromptQueue(home).all()
    port, _ = parts(url)
    replies = {
        "page": httpx.get(url),
        "state": httpx.get(f"{url}state.json"),
        "picture": httpx.get(f"{url}pictures/{task.task_id}.png"),
        "refused": httpx.get(f"http://127.0.0.1:{port}/"),
        "missing": httpx.get(f"{url}docs"),
        "mistake": httpx.post(f"{url}prompts", json={"text": ""}),
    }
    assert [reply.status_code for reply in replies.values()] == [200, 200, 200, 403, 404, 422]
    for reply in replies.values():
        for name, value in HEADERS.items():
            assert reply.headers.get_list(name) == [value]
        assert "server" not in reply.headers
        assert "set-cookie" not in reply.headers
    assert HEADERS["cache-control"] == "no-store"
    assert HEADERS["referrer-policy"] == "no-referrer"
    assert HEADERS["x-content-type-options"] == "nosniff"
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert not {"http:", "https:", "data:", "blob:", "*", "'unsafe-inline'", "'unsafe-eval'"} & set(
        policy.replace(";", " ").split()
    )


def test_no_path_leads_elsewhere(home: Home, url: str) -> None:
    finished(home, "an apple on a table")
    for path in (
        "pictures/..%2f..%2fdevice.json",
        "pictures/%2e%2e/device.png",
        "pictures/0123456789abcdef.png",
        "pictures/*.png",
        "pictures/0123456789abcdef/-1.png",
        "device.json",
        "openapi.json",
        "docs",
        "redoc",
        "..%2fdevice.json",
        "page.url",
    ):
        assert httpx.get(url + path).status_code in (404, 422), path
    # without the slash the page's own links would lose the token
    assert httpx.get(url.rstrip("/")).status_code == 404


def test_only_127_0_0_1_is_listened_on(url: str) -> None:
    port, _ = parts(url)
    listening = {
        connection.laddr.ip
        for connection in psutil.Process().net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}
    # on Linux all of 127.0.0.0/8 is this machine
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_port_that_is_taken_is_told(home: Home, url: str) -> None:
    with pytest.raises(UserError, match="--page-port"), serving_page(home, idle, parts(url)[0]):
        pass
