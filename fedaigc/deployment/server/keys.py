"""Certificates of a server, and the key pair of a device.

The server has its own certificate authority, which signs the server's certificate. Each device receives the
authority's certificate once, through a trusted channel. A device's private key is made on the device and
stays there.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedaigc.deployment.hosts import host_name
from fedaigc.errors import UserError
from fedaigc.storage.private_files import PRIVATE_FILE, private_folder

AUTHORITY = "authority.pem"
SERVER_CERTIFICATE = "server.pem"
SERVER_KEY = "server.key"
DEVICE_KEY = "device.key"
DEVICE_PUBLIC_KEY = "device.key.pub"
# certificates and public keys are meant for others
_PUBLIC_FILE = 0o644
_LIFETIME = datetime.timedelta(days=825)


def make_server_keys(folder: Path, hosts: Sequence[str]) -> Path:
    """Create a server's authority, certificate and key.

    The authority's own key is discarded, so new hosts need new keys.

    Args:
        folder: Folder of the server.
        hosts: Names or addresses under which devices reach the server, see `host_name`; localhost is always
            included.

    Returns:
        Path of the authority's certificate, for the devices.

    Raises:
        UserError: If keys already exist, or a host is neither a name nor an address.
    """
    named = [host_name(host, "--host", wildcard=True) for host in hosts]
    path = folder / AUTHORITY
    if path.exists():
        raise UserError(
            f"{folder} already has keys: to replace them, remove them and then copy the new {path} to all devices"
        )
    private_folder(folder)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("fedaigc authority")
    authority = _certificate(authority_name, authority_name, authority_key.public_key())
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = authority.add_extension(_usage(sign_certificates=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = authority.add_extension(identifier, critical=False)
    names = list(dict.fromkeys([*named, "localhost", "127.0.0.1"]))
    own = _certificate(_name("fedaigc server"), authority_name, key.public_key())
    own = own.add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False)
    own = own.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    own = own.add_extension(_usage(sign_certificates=False), critical=True)
    own = own.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    signer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    own = own.add_extension(signer, critical=False)
    signed = own.sign(authority_key, hashes.SHA256())
    _write(folder / SERVER_KEY, _private(key, serialization.PrivateFormat.PKCS8), PRIVATE_FILE)
    _write(folder / SERVER_CERTIFICATE, signed.public_bytes(serialization.Encoding.PEM), _PUBLIC_FILE)
    root = authority.sign(authority_key, hashes.SHA256())
    _write(path, root.public_bytes(serialization.Encoding.PEM), _PUBLIC_FILE)
    return path


def make_device_key(folder: Path) -> Path:
    """Create a device's key pair.

    Args:
        folder: Folder for the keys.

    Returns:
        Path of the public key, for the server.

    Raises:
        UserError: If a key already exists.
    """
    path = folder / DEVICE_KEY
    if path.exists():
        raise UserError(f"{path} already exists: a new key would make this a different device")
    private_folder(folder)
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(path, _private(key, serialization.PrivateFormat.OpenSSH), PRIVATE_FILE)
    _write(folder / DEVICE_PUBLIC_KEY, public + b"\n", _PUBLIC_FILE)
    return folder / DEVICE_PUBLIC_KEY


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    # the clocks of devices may be behind
    start = now - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(now + _LIFETIME)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
