"""TLS between paired devices: nobody else gets through."""

import datetime
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedaigc.deployment.peer.frames import Frames, PeerGone
from fedaigc.deployment.peer.paired import Card, Peers, name_of
from fedaigc.deployment.peer.tls import secured_from, secured_to
from fedaigc.device.home.home import Home


@pytest.fixture
def peers(tmp_path: Path) -> dict[str, Peers]:
    """Devices a and b are paired, c only thinks that it is."""
    found = {name: Peers(Home.open(tmp_path / name, 0)) for name in "abc"}
    found["a"].add("b", found["b"].own())
    found["b"].add("a", found["a"].own())
    found["c"].add("a", found["a"].own())
    return found


def met(caller: Peers, card: Card, listener: Peers, frame: bytes = b"hello") -> tuple[Any, Any]:
    """Return what either side gets: bytes of the other one, or an error."""
    one, other = socket.socketpair()
    found: list[Any] = []

    def listening() -> None:
        try:
            secured, name, _ = secured_from(other, listener, 20)
            with secured:
                Frames(secured, 20).send(frame)
                found.append((name, Frames(secured, 20).receive(100)))
        except PeerGone as error:
            found.append(error)

    thread = threading.Thread(target=listening)
    thread.start()
    try:
        with secured_to(one, caller, card, 20) as secured:
            frames = Frames(secured, 20)
            frames.send(b"from the caller")
            mine: Any = frames.receive(100)
    except PeerGone as error:
        mine = error
    finally:
        one.close()
    thread.join()
    other.close()
    return mine, found[0]


def test_paired_devices_meet(peers: dict[str, Peers]) -> None:
    assert met(peers["a"], peers["a"].get("b"), peers["b"]) == (b"hello", ("a", b"from the caller"))


def test_each_of_several_paired_devices_meets(peers: dict[str, Peers]) -> None:
    for one, other in [("a", "c"), ("b", "c"), ("c", "b")]:
        peers[one].add(other, peers[other].own())
    for one, other in [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")]:
        mine, theirs = met(peers[one], peers[one].get(other), peers[other])
        assert (mine, theirs) == (b"hello", (one, b"from the caller"))


def test_a_device_that_is_not_paired_gets_no_byte(peers: dict[str, Peers]) -> None:
    mine, theirs = met(peers["c"], peers["c"].get("a"), peers["a"])
    assert isinstance(mine, PeerGone)
    assert isinstance(theirs, PeerGone)


def test_another_device_in_the_place_of_a_paired_one(peers: dict[str, Peers]) -> None:
    peers["c"].add("b", peers["b"].own())
    mine, theirs = met(peers["b"], peers["b"].get("a"), peers["c"])
    assert isinstance(mine, PeerGone)
    assert isinstance(theirs, PeerGone)


@pytest.mark.slow
def test_a_device_that_was_forgotten(peers: dict[str, Peers]) -> None:
    peers["b"].remove("a")
    for answer in met(peers["a"], peers["a"].get("b"), peers["b"]):
        assert isinstance(answer, PeerGone)


def test_a_certificate_that_a_paired_device_signed_for_another(
    peers: dict[str, Peers], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = peers["c"].tls_file
    peers["c"].own()
    # its program does not check its own certificate
    monkeypatch.setattr(peers["c"], "own", lambda: None)
    issuer = serialization.load_pem_private_key(peers["b"].tls_file.read_bytes(), None)
    assert isinstance(issuer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = name_of(issuer.public_key())
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = made.sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(ValueError, match="makes for itself"):
        Card(signed.decode(), "0" * 64)
    file.write_bytes(private + signed)
    mine, theirs = met(peers["c"], peers["c"].get("a"), peers["a"])
    assert isinstance(mine, PeerGone)
    assert isinstance(theirs, PeerGone)


def test_an_older_tls_is_refused(peers: dict[str, Peers]) -> None:
    one, other = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(peers["a"].tls_file)

    def old() -> None:
        with pytest.raises(OSError, match=r"alert|version|EOF|reset"):
            context.wrap_socket(one)

    thread = threading.Thread(target=old)
    thread.start()
    with pytest.raises(PeerGone, match=r"(?i)protocol"):
        secured_from(other, peers["b"], 20)
    other.close()
    thread.join()
    one.close()
