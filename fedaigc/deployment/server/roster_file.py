"""The devices that a server knows: name, client, and the node that each key is bound to."""

import json
from base64 import b64encode
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedaigc.deployment.server.clocks import key_digest
from fedaigc.deployment.server.server import ServerState, control_environment
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.runtime.flower_runtime import ask_flwr
from fedaigc.flower_private import public_key_to_bytes
from fedaigc.storage.atomic_file import write_json
from fedaigc.storage.file_lock import locked
from fedaigc.storage.private_files import private_files

DEVICES = "devices.json"
_LOCK = ".devices.lock"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class KnownDevice:
    """A registered device.

    Attributes:
        name: Name of the device.
        client: Number of the client that the device represents.
        node_id: Flower's node id, which only the holder of the key can use.
        key: Short name of the key, see `key_digest`; "" if an earlier version registered the device.
    """

    name: str
    client: int
    node_id: int
    key: str = ""


_DEVICES = TypeAdapter(list[KnownDevice])


def known_devices(folder: Path) -> list[KnownDevice]:
    """Return the devices of a server, sorted by client.

    Raises:
        DamagedFile: If the list cannot be read.
    """
    path = folder / DEVICES
    if not path.exists():
        return []
    try:
        found = _DEVICES.validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise DamagedFile(f"{path} is damaged: restore it from a copy") from error
    return sorted(found, key=lambda device: device.client)


def register_device(
    folder: Path, state: ServerState, public_key: Path, name: str, client: int | None = None
) -> KnownDevice:
    """Register a device's public key with the running server and bind it to a client.

    Args:
        folder: Folder of the server.
        state: The running server.
        public_key: File of the device's public key.
        name: Name of the device.
        client: Number of the client; None: the lowest free number.

    Raises:
        UserError: If another device has this client or name, the name cannot be printed, the file is not a
            suitable public key, or Flower refuses it (with Flower's output).
    """
    # of two concurrent calls, the second sees what the first wrote
    with private_files(), locked(folder / _LOCK):
        return _register(folder, state, public_key, name, client)


def _register(
    folder: Path, state: ServerState, public_key: Path, name: str, client: int | None
) -> KnownDevice:
    # a name that is no text, e.g. an argument in another encoding, could not be read again
    if not name.isprintable():
        raise UserError(f"the name {name!r} has characters that cannot be printed: choose another name")
    held = known_devices(folder)
    free = (number for number in count() if number not in {device.client for device in held})
    chosen = client if client is not None else next(free)
    taken = [device for device in held if device.client == chosen or device.name == name]
    if taken:
        raise UserError(
            f"{taken[0].name!r} is already client {taken[0].client}: choose another name and --client"
        )
    digest = _digest_of(public_key)
    scratch, environment = control_environment(folder, state)
    done = ask_flwr(["supernode", "register", str(public_key.absolute())], scratch, environment)
    try:
        node_id = int(json.loads(done.stdout[done.stdout.index("{") :])["node-id"])
    except (ValueError, KeyError) as error:
        raise UserError(f"the server rejected the key:\n{(done.stdout + done.stderr).strip()}") from error
    device = KnownDevice(name, chosen, node_id, digest)
    write_json(folder / DEVICES, [asdict(entry) for entry in [*held, device]])
    return device


def nodes_online(folder: Path, state: ServerState) -> set[int]:
    """Return the ids of the nodes that are online. UserError if the server does not answer."""
    scratch, environment = control_environment(folder, state)
    done = ask_flwr(["supernode", "list"], scratch, environment)
    try:
        nodes = json.loads(done.stdout[done.stdout.index("{") :])["nodes"]
        return {int(node["node-id"]) for node in nodes if node["status"] == "online"}
    except (ValueError, KeyError) as error:
        raise UserError(f"the server does not answer:\n{(done.stdout + done.stderr).strip()}") from error


def _digest_of(path: Path) -> str:
    """Return the short name of the public key in a file. UserError unless `fedaigc keys device` makes such keys."""
    made = "`fedaigc keys device HOME` creates it on the device, as HOME/keys/device.key.pub"
    if not path.is_file():
        raise UserError(f"{path} does not exist: {made}")
    content = path.read_bytes()
    if b"PRIVATE KEY" in content:
        raise UserError(
            f"{path} is a private key, which must stay on its device: give the public key; {made}"
        )
    try:
        key = load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise UserError(f"{path} is not a public key of an elliptic curve: {made}")
    return key_digest(b64encode(public_key_to_bytes(key)).decode())
