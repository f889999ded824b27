"""What a device reports of its connection to the server, and servers and devices that cannot start."""

import json
import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedaigc.deployment.agent.agent import AgentSettings
from fedaigc.deployment.agent.connection import (
    CONNECTED,
    CONNECTING,
    LOST,
    OTHER_AUTHORITY,
    TURNED_AWAY,
    connection,
)
from fedaigc.deployment.agent.resident import run_device
from fedaigc.deployment.page.state import PageState
from fedaigc.deployment.processes import SUPERNODE_LOG, begin_anew
from fedaigc.deployment.server.keys import DEVICE_KEY, make_device_key, make_server_keys
from fedaigc.deployment.server.roster_file import register_device
from fedaigc.deployment.server.server import ServerState, start_server
from fedaigc.device.home.home import Home
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import ModelSection

START = "\x1b[92mINFO \x1b[0m:      Starting Flower SuperNode\n"


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("", CONNECTING),
        ("SuperNode ID: 42\n", CONNECTED),
        ("SuperNode ID: 42\nConnection attempt failed, retrying in 0.59 seconds\n", LOST),
        ("Connection attempt failed, retrying\nConnection successful after 58.05 seconds\n", CONNECTED),
        ("Exit Code: 305\nFailed to initialize\n[code: 2004] Failed to activate SuperNode.\n", TURNED_AWAY),
        ("Exit Code: 305\n[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: x\n", OTHER_AUTHORITY),
        (
            "Exit Code: 305\ncertificate verify failed: certificate is not yet valid\n",
            "is not valid yet by the clock",
        ),
        (
            "Exit Code: 305\ncertificate verify failed: certificate has expired\n",
            "expired by the clock of this device",
        ),
        (
            "through the proxy http://p:3128\nSuperNode ID: 42\n",
            "connected (through the proxy http://p:3128)",
        ),
        ("Exit Code: 600\nsomething new\n", "supernode.log"),
        ("Exit Code: 305\n[code: 2004] Failed to activate SuperNode.\n" + START, CONNECTING),
    ],
    ids=range(11),
)
def test_the_last_news_of_a_supernode_holds(tmp_path: Path, then: str, told: str) -> None:
    log = tmp_path / "relay" / SUPERNODE_LOG
    log.parent.mkdir()
    assert connection(tmp_path) is None
    log.write_text("x" * 100_000 + "\n" + START + then)
    assert told in (connection(tmp_path) or "")
    begin_anew(log)
    assert connection(tmp_path) is None
    log.write_text("nothing that matters\n")
    assert connection(tmp_path) is None


def test_the_page_of_a_device_shows_its_connection(tmp_path: Path) -> None:
    page = PageState(Home.open(tmp_path), lambda: {"client": 0, "busy": False})
    assert json.loads(page.to_json())["server"] is None
    log = tmp_path / "relay" / SUPERNODE_LOG
    log.parent.mkdir()
    log.write_text(START + "SuperNode ID: 42\n")
    assert json.loads(page.to_json())["server"] == CONNECTED


def test_a_server_says_that_its_port_is_taken(tmp_path: Path) -> None:
    make_server_keys(tmp_path, ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another"):
            start_server(tmp_path, "127.0.0.1", port)
    # an address that no machine has (RFC 5737)
    with pytest.raises(UserError, match=r"192\.0\.2\.1:9443: Cannot assign"):
        start_server(tmp_path, "192.0.2.1", 9443)


def test_only_public_keys_are_registered(tmp_path: Path) -> None:
    state = ServerState(1, 0.0, "127.0.0.1", 9, "127.0.0.1:9", tls=True)
    make_device_key(tmp_path / "keys")
    (tmp_path / "text").write_text("no key\n")
    other = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "other.pub").write_bytes(other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    for name, told in (
        (f"keys/{DEVICE_KEY}", "is a private key, which must stay on its device"),
        ("text", "is not a public key"),
        ("other.pub", "is not a public key"),
        ("none.pub", "does not exist"),
    ):
        with pytest.raises(UserError, match=told):
            register_device(tmp_path, state, tmp_path / name, "anna")


@pytest.mark.parametrize("server", ["nonsense", "server.example", "https://server.example:9443", "a:b", ":1"])
def test_a_server_is_a_host_and_a_port(tmp_path: Path, server: str) -> None:
    with pytest.raises(UserError, match="expected host:port"):
        run_device(
            tmp_path,
            AgentSettings(0, ModelSection()),
            server=server,
            authority=None,
            insecure=True,
            page_port=None,
            say=print,
        )
