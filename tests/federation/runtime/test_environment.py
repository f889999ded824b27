"""What child processes inherit: no proxy to loopback, no cluster, database or module of other launches."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedaigc.errors import UserError
from fedaigc.federation.runtime import proxies
from fedaigc.federation.runtime.environment import (
    child_environment,
    flower_environment,
    python_command,
    python_path,
)
from fedaigc.federation.runtime.flower_runtime import _short_folder
from fedaigc.federation.runtime.proxies import proxy_to, shown, through, without_proxy_to_loopback
from tests.federation.runtime.surroundings import HIDING, hiding_folder, hostile_environment, inherited

ASK = """
import json, sys, urllib.request
import grpc, httpx, requests
url = sys.argv[1]
print(httpx.get(url).status_code, requests.get(url).status_code, urllib.request.urlopen(url).status)
with httpx.Client() as client:
    assert client.get(url.replace("127.0.0.1", "localhost")).status_code == 200
"""


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a server on loopback."""

    class Yes(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Yes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_child_processes_reach_loopback_whatever_proxies_are_set(address: str, tmp_path: Path) -> None:
    hostile = inherited(hostile_environment(tmp_path), without=("no_proxy",))
    command = [sys.executable, "-c", ASK, address]
    refused = subprocess.run(command, env=hostile, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    for environment in (child_environment(hostile), flower_environment(tmp_path, 1, environment=hostile)):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == "200 200 200\n", done.stderr


def test_the_exceptions_of_a_user_stay() -> None:
    given = {
        "NO_PROXY": "example.com, .intern",
        "https_proxy": "http://proxy:3128",
        "no_grpc_proxy": "a.example",
    }
    found = without_proxy_to_loopback(given)
    assert found["https_proxy"] == "http://proxy:3128"
    assert found["NO_PROXY"] == found["no_proxy"] == "example.com,.intern,localhost,127.0.0.1,::1"
    assert found["no_grpc_proxy"] == "a.example,localhost,127.0.0.1,::1"
    assert without_proxy_to_loopback(found) == found
    # of two spellings the lower case counts, as in Python and curl
    assert without_proxy_to_loopback({"NO_PROXY": "a", "no_proxy": "b"})["NO_PROXY"].split(",")[0] == "b"


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any proxy."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("host", "exceptions", "proxied"),
    [
        ("server.example", "", True),
        ("server.example", "other.example", True),
        ("server.example", ".example", False),
        ("server.example", "*", False),
        ("192.0.2.7", "192.0.2.0/24, x", False),
        ("192.0.3.7", "192.0.2.0/24", True),
        ("2001:db8::7", "2001:db8::/32", False),
        ("localhost", "", False),
        ("127.0.0.2", "", False),
        ("::1", "", False),
    ],
)
def test_a_device_reaches_a_server_through_the_proxy_that_the_environment_names(
    variables: pytest.MonkeyPatch, host: str, exceptions: str, proxied: bool
) -> None:
    assert proxy_to(host, tls=True) is None
    variables.setenv("HTTPS_PROXY", "anna:secret@proxy.example:3128")
    variables.setenv("NO_PROXY", exceptions)
    found = proxy_to(host, tls=True)
    assert found == ("http://anna:secret@proxy.example:3128" if proxied else None)
    assert proxy_to(host, tls=False) is None
    environment = through(found, tls=True)
    assert environment.get("https_proxy") == found
    assert "HTTPS_PROXY" not in environment
    assert environment["NO_PROXY"] == "localhost,127.0.0.1,::1"


def test_a_proxy_is_shown_without_its_password() -> None:
    assert shown("http://anna:se@cret@proxy.example:3128/") == "http://proxy.example:3128"
    assert shown("proxy.example:3128") == "http://proxy.example:3128"


def test_a_proxy_that_cannot_be_used_is_an_error_where_it_is_needed(variables: pytest.MonkeyPatch) -> None:
    variables.setattr(proxies, "find_spec", lambda name: None)
    variables.setenv("ALL_PROXY", "socks5://anna:secret@proxy.example:1080")
    with pytest.raises(
        UserError, match=r'socks5://proxy\.example:1080 for server\.example.*"httpx\[socks\]"'
    ):
        proxy_to("server.example", tls=True)
    assert proxy_to("127.0.0.1", tls=True) is None
    variables.setenv("ALL_PROXY", "gopher://proxy.example")
    with pytest.raises(UserError, match="of the kind gopher: expected http"):
        proxy_to("server.example", tls=True)


def test_a_run_has_a_cluster_of_its_own(tmp_path: Path) -> None:
    given = {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_AUTH_TOKEN": "theirs", "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    given |= {"FLWR_DATABASE": "x", "PATH": "/bin"}
    own = flower_environment(tmp_path, 1, environment=given)
    assert not own.keys() & {"RAY_ADDRESS", "FLWR_DATABASE", "RAY_JOB_CONFIG_JSON_ENV_VAR"}
    assert own["RAY_AUTH_TOKEN"] != "theirs"


def test_modules_of_a_user_do_not_hide_what_ships(tmp_path: Path) -> None:
    """Neither in a child process of a script beside them, nor in one of a shell in their folder."""
    folder = hiding_folder(tmp_path)
    (folder / "helper.py").write_text("")
    (folder / "script.py").write_text(
        "import subprocess, sys\n"
        "sys.path.insert(1, sys.argv[1])\n"
        "first = sys.path.pop(0)\n"
        "from fedaigc.federation.runtime.environment import child_environment\n"
        "sys.path.insert(0, first)\n"
        "subprocess.run([sys.executable, '-P', '-c', sys.argv[2]], env=child_environment(), check=True)\n"
    )
    ours = str(Path(__file__).parents[3])
    look = (
        "import importlib.util as u\n"
        f"for name in {HIDING[:6]!r}:\n"
        f"    assert {str(folder)!r} not in u.find_spec(name).origin, name\n"
        "import helper\n"
        "from fedaigc.strategy.sources import strategy_names, strategy_module\n"
        "assert 'fedit' in strategy_names()\n"
        "print(strategy_module('fedit').__name__)\n"
    )
    environment = inherited({}, without=("PYTHONPATH", "PYTHONSAFEPATH"))
    done = subprocess.run(
        [sys.executable, "script.py", ours, look],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "fedaigc.strategy.builtin.fedit\n", done.stderr
    assert python_command("x")[1:] == ["-P", "-m", "x"]


def test_relative_folders_of_pythonpath_keep_their_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["lib", *sys.path])
    monkeypatch.setenv("PYTHONPATH", "lib")
    monkeypatch.chdir(tmp_path)
    assert python_path().split(os.pathsep)[0] == str(tmp_path / "lib")


def test_temporary_folders_are_short_enough_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    for folder in (tmp_path / ("t" * 100), Path("/no/such/folder"), Path("/dev/null")):
        if folder.is_relative_to(tmp_path):
            folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        found = _short_folder()
        assert "RAY_TMPDIR" in flower_environment(found, 1)
        found.rmdir()
    monkeypatch.setattr("fedaigc.federation.runtime.flower_runtime._SHORT_FOLDERS", ("/no/such/folder",))
    with pytest.raises(UserError, match="name it in TMPDIR"):
        _short_folder()
