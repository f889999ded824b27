"""Clocks that differ too much from the server's: the device is told the seconds, and the server reports them."""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes, sign_message
from starlette.testclient import TestClient
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.deployment.agent.connection import connection
from fedaigc.deployment.processes import SUPERNODE_LOG
from fedaigc.deployment.server.clocks import CLOCKS, Clocks, differences, key_digest, reported, told
from fedaigc.deployment.server.door import door
from fedaigc.deployment.server.roster_file import DEVICES, KnownDevice
from fedaigc.flower_private import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER


class Signer:
    """A device with a clock of its own."""

    def __init__(self) -> None:
        self.private, public = generate_key_pairs()
        self.key = b64encode(public_key_to_bytes(public)).decode()

    def headers(self, ahead_s: float) -> dict[str, str]:
        at = (datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat()
        signature = b64encode(sign_message(self.private, at.encode())).decode()
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: self.key,
            TIMESTAMP_HEADER: at,
            FLEET_HTTP_SIGNATURE_HEADER: signature,
        }


def register(folder: Path, device: Signer) -> None:
    known = [asdict(KnownDevice("anna", 0, 7, key_digest(device.key)))]
    (folder / DEVICES).write_text(json.dumps(known))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A door before a port at which nobody listens."""
    with TestClient(door("http://127.0.0.1:9", None, clocks=Clocks(tmp_path))) as client:
        yield client


@pytest.mark.parametrize(
    ("ahead_s", "sentence"),
    [(8.0, "8.0 s ahead of that of the server"), (-306.0, "306.0 s behind that of the server")],
)
def test_a_device_is_told_by_how_much_its_clock_is_off(
    tmp_path: Path, client: TestClient, ahead_s: float, sentence: str
) -> None:
    device = Signer()
    register(tmp_path, device)
    reply = client.post("/v1/fleet/activate-node", headers=device.headers(ahead_s))
    assert reply.status_code == 400
    assert sentence in reply.json()["detail"]
    # as the SuperNode prints the reply
    log = tmp_path / "relay" / SUPERNODE_LOG
    log.parent.mkdir()
    log.write_text(f"Exit Code: 305\n[code: 0] {reply.json()['detail']}\n")
    assert sentence in (connection(tmp_path) or "")
    assert "set the clock" in (connection(tmp_path) or "")
    (entry,) = differences(tmp_path).values()
    assert entry.ahead_s == pytest.approx(ahead_s, abs=0.5)
    assert sentence.split(" that")[0] in reported(entry)


@pytest.mark.parametrize("ahead_s", [4.0, 0.0, -304.0])
def test_what_flower_admits_is_passed_on(tmp_path: Path, client: TestClient, ahead_s: float) -> None:
    device = Signer()
    register(tmp_path, device)
    assert client.post("/v1/fleet/activate-node", headers=device.headers(ahead_s)).status_code == 503
    assert not (tmp_path / CLOCKS).exists()


def test_only_registered_devices_leave_a_note(tmp_path: Path, client: TestClient) -> None:
    device, stranger = Signer(), Signer()
    register(tmp_path, device)
    headers = stranger.headers(99.0)
    forged = device.headers(99.0) | {FLEET_HTTP_SIGNATURE_HEADER: headers[FLEET_HTTP_SIGNATURE_HEADER]}
    for asked in (headers, forged, forged | {FLEET_HTTP_SIGNATURE_HEADER: "?"}):
        assert client.post("/v1/fleet/pull-messages", headers=asked).status_code == 400
    assert differences(tmp_path) == {}
    for odd in ("yesterday", "2026-01-01T00:00:00", "9999-99-99"):
        reply = client.post("/v1/fleet/pull-messages", headers=headers | {TIMESTAMP_HEADER: odd})
        assert reply.status_code == 503


def test_the_status_of_a_server_names_the_device_and_the_seconds(
    tmp_path: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Signer()
    register(tmp_path, device)
    client.post("/v1/fleet/activate-node", headers=device.headers(8.0))
    from fedaigc.deployment.server import roster_file, runs, server

    state = server.ServerState(1, 0.0, "::", 9443, "127.0.0.1:9", tls=True)
    monkeypatch.setattr(server, "server_state", lambda folder: state)
    monkeypatch.setattr(runs, "going_on", lambda *_: set())
    monkeypatch.setattr(roster_file, "nodes_online", lambda *_: set())
    said = CliRunner().invoke(app, ["server", "status", str(tmp_path)]).output
    assert "client 0: anna, node 7, offline, refused: its clock is 8.0 s ahead of that of this server" in said
    monkeypatch.setattr(roster_file, "nodes_online", lambda *_: {7})
    said = CliRunner().invoke(app, ["server", "status", str(tmp_path)]).output
    assert "anna, node 7, online\n" in said
    assert "8.0" in told(8.0)
