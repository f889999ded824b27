"""The keys of a device for other devices, and those of the devices that it is paired with, in its home.

    peers/own/tls.pem     key and certificate of this device for connections to paired devices
    peers/own/seal.key    its key for sealed packets
    peers/<name>.json     certificate and public key of a paired device, by the name that the owner gave it

Certificates sign themselves and do not expire: what counts is that both owners have exchanged them. The name in each
follows from its key, because TLS looks up certificates by name: no device can stand in the way of another one.
"""

import datetime
import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ConfigDict, with_config

from fedaigc.bounds import MAX_PEERS
from fedaigc.collaboration.sealing import KEY_BYTES, new_key, public_key
from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile, UserError

_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,31}")
_SEAL_KEY = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")
# a name has at most 64 characters
_NAME_DIGITS = 40
# as a certificate writes that it has no end
_NO_END = datetime.datetime(9999, 12, 31, 23, 59, 59)
_START = datetime.datetime(2000, 1, 1)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Card:
    """What a device gives to a device that it pairs with.

    Attributes:
        certificate: Its certificate, in PEM.
        seal: Its public key for sealed packets, in hex.

    Raises:
        ValueError: If either is something else.
    """

    certificate: str
    seal: str

    def __post_init__(self) -> None:
        if not _SEAL_KEY.fullmatch(self.seal):
            raise ValueError(f"the key for packets must be {KEY_BYTES} bytes in hex")
        found = x509.load_pem_x509_certificate(self.certificate.encode())
        key = found.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not found.issuer == found.subject == name_of(
            key
        ):
            raise ValueError("the certificate is not one that a device makes for itself")

    @property
    def der(self) -> bytes:
        """The certificate as TLS sends it."""
        found = x509.load_pem_x509_certificate(self.certificate.encode())
        return found.public_bytes(serialization.Encoding.DER)

    @property
    def seal_key(self) -> bytes:
        """The public key for sealed packets."""
        return bytes.fromhex(self.seal)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hex."""
        return hashlib.sha256(self.der).hexdigest()


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class _Kept:
    certificate: str
    seal: str
    paired: float


class Peers:
    """The keys of one home.

    Args:
        home: The home.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.root / "peers"
        self.tls_file = self._folder / "own" / "tls.pem"
        self._seal_file = self._folder / "own" / "seal.key"

    def own(self) -> Card:
        """Return this device's own card. Its keys are made at the first call.

        Raises:
            DamagedFile: If a file of the keys is damaged.
        """
        with self._home.changing("peers"):
            self._home.folder(self._folder)
            self._home.folder(self._folder / "own")
            if not self._seal_file.exists():
                self._home.write(self._seal_file, new_key().hex().encode())
            if not self.tls_file.exists():
                self._home.write(self.tls_file, _key_and_certificate())
        try:
            text = self.tls_file.read_text(encoding="utf-8")
            return Card(text[text.index("-----BEGIN CERTIFICATE") :], public_key(self.seal_key()).hex())
        except ValueError:
            raise DamagedFile(f"{self.tls_file} is damaged: remove it, then pair this device again") from None

    def seal_key(self) -> bytes:
        """Return this device's private key for sealed packets; DamagedFile if its file is damaged."""
        text = self._seal_file.read_text(encoding="utf-8", errors="replace")
        if not _SEAL_KEY.fullmatch(text):
            raise DamagedFile(f"{self._seal_file} is damaged: remove it, then pair this device again")
        return bytes.fromhex(text)

    def add(self, name: str, card: Card) -> None:
        """Keep a paired device under a name; the one that had the name is replaced.

        Raises:
            UserError: As `check_name`, and if it is this device itself, or paired under another name.
        """
        self.check_name(name)
        if card.certificate == self.own().certificate:
            raise UserError("this is the device itself: pair two different ones")
        with self._home.changing("peers"):
            for other, kept in self.all():
                if other != name and kept.der == card.der:
                    raise UserError(f"this device is already paired as {other!r}: remove that first")
            self._home.write_json(self._path(name), asdict(card) | {"paired": round(time.time())})

    def check_name(self, name: str) -> None:
        """Raise UserError for a name that no paired device can have, or one more than `MAX_PEERS`."""
        if not _NAME.fullmatch(name) or name == "own":
            raise UserError(
                f"{name!r:.60} is no name for a device: expected a-z, 0-9, - and _, such as kitchen"
            )
        if not self._path(name).exists() and len(list(self._files())) >= MAX_PEERS:
            raise UserError(f"this device is paired with {MAX_PEERS} devices: remove one first")

    def get(self, name: str) -> Card:
        """Return a paired device.

        Raises:
            UserError: If there is none of this name.
            DamagedFile: If its file is damaged.
        """
        if not _NAME.fullmatch(name) or not self._path(name).exists():
            known = ", ".join(path.stem for path in self._files()) or "none"
            raise UserError(
                f"no paired device {name!r:.60} (paired: {known}): `fedaigc device pair {self._home.root} NAME`"
            )
        return self._read(self._path(name))

    def all(self) -> list[tuple[str, Card]]:
        """Return every paired device by its name; DamagedFile if a file is damaged."""
        return [(path.stem, self._read(path)) for path in self._files()]

    def remove(self, name: str) -> None:
        """Forget a paired device: from then on it cannot connect. UserError if there is none of this name."""
        with self._home.changing("peers"):
            if not _NAME.fullmatch(name) or not self._path(name).exists():
                self.get(name)
            self._path(name).unlink()

    def _files(self) -> Iterator[Path]:
        yield from sorted(self._folder.glob("*.json"))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _read(self, path: Path) -> Card:
        kept = self._home.read(path, _Kept)
        try:
            return Card(kept.certificate, kept.seal)
        except ValueError as error:
            raise DamagedFile(
                f"{path} is damaged ({error}): remove it, then pair this device again"
            ) from None


def name_of(key: ec.EllipticCurvePublicKey) -> x509.Name:
    """Return the name in the certificate of a key."""
    data = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    common = f"fedaigc device {hashlib.sha256(data).hexdigest()[:_NAME_DIGITS]}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_and_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = name_of(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_START)
        .not_valid_after(_NO_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
