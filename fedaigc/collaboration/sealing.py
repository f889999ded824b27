"""Packets that only their receivers can open, for groups whose packets another machine forwards.

A sealed packet has one encrypted body for all members of a group, and for each member the body's content key, wrapped
for the member's key:

    offset  size       content
    0       4          magic "FAGS"
    4       2          version, little-endian like all numbers here
    6       2          m, the number of members
    8       4          r, the room: the size up to which packets of the session are padded
    12      32         a public key e of this packet alone
    44      r + 20     body: the length of the packet, the packet, zeros; encrypted with ChaCha20-Poly1305
    r + 64  48 m       the content key, wrapped for each member, in random order
    ...     32         HMAC-SHA-256 of all before, with a key that follows from the content key

A content key is wrapped with a key from both X25519(e, member) and X25519(sender, member), by HKDF [RFC5869]: a member
knows who sealed a packet, and nobody else can prove it. Group, step, and the keys of sender and member enter this
derivation and nothing of them is sent, so that a packet opens only where all of them are as they were. The wrapped
keys cover a digest of the body: a member, who knows the content key, cannot give another body to the others.

Who forwards learns when a packet is sent, the number of members, and the room. All packets of one room have one size:
the hand-off step does not show. Whoever gets hold of a member's key later can open what was recorded before.

References:
    [RFC5869] Krawczyk, Eronen, "HMAC-based extract-and-expand key derivation function (HKDF)", 2010.
"""

import hashlib
import hmac
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedaigc.bounds import MAX_PACKET_BYTES, MAX_SEALED_MEMBERS
from fedaigc.errors import Error, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
VERSION = 1
_MAGIC = b"FAGS"
_PREFIX = struct.Struct("<4sHHI")
_LENGTH = struct.Struct("<I")
_AUTHENTICATION = 16
_WRAPPED = KEY_BYTES + _AUTHENTICATION
_CHECKSUM = 32
_ROOM_TENSORS, _ROOM_HEADER = 8, 1 << 14
_LABEL = b"fedaigc sealed packet 1"
_KEY_LABEL = b"fedaigc key of two devices 1 "
# every key encrypts one text only
_NONCE = bytes(12)


class SealError(Error, ValueError):
    """A sealed packet that this member cannot open here. All causes look alike to other machines."""


@dataclass(frozen=True)
class Binding:
    """What a sealed packet is bound to. Nothing of it is sent.

    Attributes:
        group: Identifies the group and its session, 16 to 64 bytes that were never used before.
        step: The hand-off step of the packet.
    """

    group: bytes
    step: int

    def __post_init__(self) -> None:
        if not 16 <= len(self.group) <= 64:
            raise ValueError(f"the id of a group has {len(self.group)} bytes: expected 16 to 64")
        if not 0 <= self.step < 2**32:
            raise ValueError(f"step {self.step}: expected a count")


def new_key() -> bytes:
    """Return a new private key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """Return the public key of a private one."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def shared_key(private: bytes, public: bytes, label: bytes) -> bytes:
    """Return a key that only the owners of two private keys have: the same from either private and public key.

    Args:
        private: The private key of this machine.
        public: The public key of the other one.
        label: What the key is for: keys for other purposes are others.
    """
    return _derived(_exchanged(private, public), _KEY_LABEL + label)


def sealed_bytes(room: int, members: int) -> int:
    """Return the size of a sealed packet; compare the size of the packet itself."""
    body = _LENGTH.size + room + _AUTHENTICATION
    return _PREFIX.size + KEY_BYTES + body + _WRAPPED * members + _CHECKSUM


def packet_room(values: int) -> int:
    """Return room for the packet of every step: latents, what schedulers keep of earlier steps, and a header.

    Args:
        values: Number of values of the latents.
    """
    return min(4 * values * _ROOM_TENSORS + _ROOM_HEADER, MAX_PACKET_BYTES)


def seal(packet: bytes, binding: Binding, sender: bytes, members: Sequence[bytes], room: int) -> bytes:
    """Seal a packet to the members of a group.

    Args:
        packet: The packet.
        binding: Group and step.
        sender: The private key of the machine that ran the shared steps.
        members: Public keys of the receivers.
        room: Size up to which the packet is padded: the same for every step of the session.

    Raises:
        UserError: If the packet is larger than the room, or the room than a packet may be, or the members are too
            many, none, or not distinct keys.
    """
    if not len(packet) <= room <= MAX_PACKET_BYTES:
        raise UserError(f"a packet of {len(packet)} bytes, room for {room} of at most {MAX_PACKET_BYTES}")
    if not 0 < len(set(members)) == len(members) <= MAX_SEALED_MEMBERS:
        raise UserError(
            f"{len(members)} keys, {len(set(members))} of them different: expected 1 to {MAX_SEALED_MEMBERS} "
            "different ones"
        )
    own = new_key()
    header = _PREFIX.pack(_MAGIC, VERSION, len(members), room) + public_key(own)
    context = _context(binding, public_key(sender)) + header
    content_key = secrets.token_bytes(KEY_BYTES)
    body_key, checksum_key = _body_keys(content_key)
    text = _LENGTH.pack(len(packet)) + packet + bytes(room - len(packet))
    covered = header + _cipher(body_key).encrypt(_NONCE, text, context)
    digest = hashlib.sha256(covered).digest()
    try:
        keys = [
            _derived(_exchanged(own, member) + _exchanged(sender, member), context + member)
            for member in members
        ]
    except ValueError:
        raise UserError(f"a member's key is no X25519 key: expected {KEY_BYTES} bytes") from None
    secrets.SystemRandom().shuffle(keys)
    covered += b"".join(_cipher(key).encrypt(_NONCE, content_key, digest) for key in keys)
    return covered + hmac.digest(checksum_key, covered, "sha256")


def unseal(sealed: bytes, binding: Binding, member: bytes, sender: bytes) -> bytes:
    """Open a sealed packet.

    Args:
        sealed: The sealed packet.
        binding: Group and step, as this machine knows them.
        member: The private key of this machine.
        sender: Public key of the machine that ran the shared steps.

    Raises:
        SealError: If it is not sealed to this member for this group and step by this sender, or was changed.
    """
    from cryptography.exceptions import InvalidTag

    start = _PREFIX.size + KEY_BYTES
    if len(sealed) < start or sealed[:4] != _MAGIC:
        raise SealError(f"not a sealed packet: {len(sealed)} bytes")
    _, version, members, room = _PREFIX.unpack_from(sealed)
    if version != VERSION:
        raise SealError(f"a sealed packet of version {version}, this build reads version {VERSION}")
    if not 0 < members <= MAX_SEALED_MEMBERS or room > MAX_PACKET_BYTES:
        raise SealError(
            f"{members} members, room for {room} bytes: at most {MAX_SEALED_MEMBERS}, {MAX_PACKET_BYTES}"
        )
    if len(sealed) != sealed_bytes(room, members):
        raise SealError(f"a sealed packet of {len(sealed)} bytes: expected {sealed_bytes(room, members)}")
    header, covered, checksum = sealed[:start], sealed[:-_CHECKSUM], sealed[-_CHECKSUM:]
    end = len(covered) - _WRAPPED * members
    context = _context(binding, sender) + header
    digest = hashlib.sha256(covered[:end]).digest()
    try:
        secret = _exchanged(member, header[-KEY_BYTES:]) + _exchanged(member, sender)
    except ValueError:
        raise SealError("the packet names no X25519 key") from None
    cipher = _cipher(_derived(secret, context + public_key(member)))
    for first in range(end, len(covered), _WRAPPED):
        try:
            content_key = cipher.decrypt(_NONCE, covered[first : first + _WRAPPED], digest)
        except InvalidTag:
            continue
        body_key, checksum_key = _body_keys(content_key)
        if not hmac.compare_digest(hmac.digest(checksum_key, covered, "sha256"), checksum):
            break
        try:
            text = _cipher(body_key).decrypt(_NONCE, covered[start:end], context)
        except InvalidTag:
            break
        (length,) = _LENGTH.unpack_from(text)
        if length > room:
            break
        return text[_LENGTH.size : _LENGTH.size + length]
    raise SealError("the packet was changed, or it is not sealed to this machine for this group and step")


def _context(binding: Binding, sender: bytes) -> bytes:
    return b"".join([_LABEL, bytes([len(binding.group)]), binding.group, _LENGTH.pack(binding.step), sender])


def _exchanged(private: bytes, public: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    # ValueError for a public key with which every private key gives the same
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def _body_keys(content_key: bytes) -> tuple[bytes, bytes]:
    return _derived(content_key, _LABEL + b" body"), _derived(content_key, _LABEL + b" checksum")


def _derived(secret: bytes, info: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, None, info).derive(secret)


def _cipher(key: bytes) -> "ChaCha20Poly1305":
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key)
