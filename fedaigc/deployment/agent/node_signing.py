"""Sign with the node key of a device, and read the node keys that its owner trusts."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedaigc.errors import UserError

Signer: TypeAlias = tuple[bytes, Callable[[bytes], bytes]]


def node_signer(path: Path) -> Signer | None:
    """Return the public key of a device's key file, in the OpenSSH format, and what signs with the private one.

    Args:
        path: The private key, from `fedaigc keys device`. If there is none, the result is None.

    Raises:
        UserError: If the file is no private key of an elliptic curve.
    """
    if not path.is_file():
        return None
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (UnsupportedAlgorithm, ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"{path} is not a device's key: restore it, or make one with `fedaigc keys device`")
    private = key
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return public, lambda text: private.sign(text, ec.ECDSA(hashes.SHA256()))


def read_trusted_keys(path: Path) -> frozenset[bytes]:
    """Read public node keys, one a line as in `keys/device.key.pub` of a home; comments after a key are left out.

    Raises:
        UserError: If the file cannot be read, or a line is no public key.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    found = set()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or line.startswith(b"#"):
            continue
        key = b" ".join(words[:2])
        try:
            load_ssh_public_key(key)
        except (UnsupportedAlgorithm, ValueError, TypeError):
            raise UserError(
                f"{path}, line {number}: no public key; give the content of keys/device.key.pub of each device"
            ) from None
        found.add(key)
    return frozenset(found)
