"""Keys of a sum and pairwise masks, which cancel in the sum bit for bit [Bon17].

Each member announces a fresh X25519 key. Two members i, j with the common secret s_ij derive

    k_ij = HKDF-SHA256(s_ij, salt = hash of the round),   r_ij = ChaCha20 keystream under k_ij, as integers

and member i sends, modulo 2^64,

    y_i = q_i + sum_(j > i) r_ij - sum_(j < i) r_ij

in the order of their keys, so that sum_i y_i = sum_i q_i. The hash of the round covers the run, the group, the number
of the round, the form of the conditioning, the noise, and all announced keys with what vouches for them. Members that
were shown different lists derive masks that do not cancel, and the sum is noise.

What it promises. The server, and members that collude with it, learn the sum of all others' values and nothing else of
them, if at least two of the others follow the protocol. Two of three who collude with the server learn the third's.
There are no shares of secrets for members that vanish: without one of them there is no sum.

Who vouches for the keys. In a deployment each key is signed with the node key of its device, and a device may hold a
list of node keys that its owner trusts. Without such a list, and in simulations, where keys are not signed, nobody does
but the server: one that makes up the keys of all other members learns the value of the last. The promise then holds
against an honest-but-curious server only.

References:
    [Bon17] Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017. Here
        without its secret sharing: a group is small, and its members are asked within seconds.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from fedaigc.errors import UserError

MIN_MEMBERS = 3
KEY_BYTES = 32
_PRIME = 2**255 - 19
_PURPOSE = b"fedaigc conditioning sum 1"


@dataclass(frozen=True)
class Announced:
    """A member's key, as the others see it.

    Attributes:
        key: X25519 public key, 32 bytes.
        node_key: Public node key of its device in the OpenSSH format; empty if the key is not signed.
        signature: Signature of `signed_text`; empty if the key is not signed.
    """

    key: bytes
    node_key: bytes = b""
    signature: bytes = b""

    def signed_text(self, run: str, number: str) -> bytes:
        """Return what a node key signs: purpose, run, round and key."""
        return _PURPOSE + json.dumps([run, number, self.key.hex()]).encode()


@dataclass(frozen=True)
class SumRound:
    """All that the members of a sum must agree on.

    Attributes:
        run: The run.
        group: Public prompt of the group.
        number: Random number of the round, in hex.
        layout: Form of the conditioning, see `fixed_point.layout`.
        noise_epsilon: Epsilon of the noise; None for none.
        members: All members, the device itself among them, in any order.
    """

    run: str
    group: str
    number: str
    layout: str
    noise_epsilon: float | None
    members: tuple[Announced, ...]

    @property
    def hash(self) -> bytes:
        """SHA-256 of the round, which is part of all masks."""
        members = sorted([m.key.hex(), m.node_key.hex(), m.signature.hex()] for m in self.members)
        parts = [self.run, self.group, self.number, self.layout, self.noise_epsilon, members]
        return hashlib.sha256(_PURPOSE + json.dumps(parts).encode()).digest()

    def check(
        self, own: bytes, *, also_own: Collection[bytes] = (), trusted: Collection[bytes] | None = None
    ) -> None:
        """Check that a device may take part.

        Args:
            own: The device's public key in this sum.
            also_own: Public keys of the same device's other tasks, which protect nothing from itself.
            trusted: Node keys that the owner trusts. None: signatures that are there must hold, and nobody is asked
                for one.

        Raises:
            UserError: If there are fewer than `MIN_MEMBERS` members or fewer than two other devices, if the own key is
                not listed exactly once, if keys repeat or are invalid, or if a signature does not hold or is missing.
        """
        keys = [member.key for member in self.members]
        for key in keys:
            check_key(key)
        if len(set(keys)) != len(keys):
            raise UserError("the keys of a sum repeat: each member must have its own")
        if own not in keys:
            raise UserError("this device's key is not in the list of a sum")
        others = [member for member in self.members if member.key not in {own, *also_own}]
        devices = len({member.node_key or member.key for member in others})
        if len(keys) < MIN_MEMBERS or devices < MIN_MEMBERS - 1:
            raise UserError(
                f"a sum of {len(keys)} members and {devices} other devices: expected at least {MIN_MEMBERS} members "
                f"and {MIN_MEMBERS - 1} other devices, or it shows what a single one gives"
            )
        for member in others:
            self._check_signature(member, trusted)

    def _check_signature(self, member: Announced, trusted: Collection[bytes] | None) -> None:
        if trusted is not None and member.node_key not in trusted:
            raise UserError("a member of a sum has a node key that this device's owner does not trust")
        if not member.node_key and not member.signature:
            return
        if not _verified(member, member.signed_text(self.run, self.number)):
            raise UserError("the key of a member of a sum has a signature that does not hold")


class SumKey:
    """The X25519 key pair of one member for one sum."""

    def __init__(self, private: bytes | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._key = (
            X25519PrivateKey.generate() if private is None else X25519PrivateKey.from_private_bytes(private)
        )

    @property
    def private(self) -> bytes:
        """The private key, 32 bytes, for the device's own store."""
        return self._key.private_bytes_raw()

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def masked(self, values: UInt64[np.ndarray, " n"], round: SumRound) -> UInt64[np.ndarray, " n"]:
        """Return the values with this member's masks, modulo 2^64. `round.check` must have passed.

        Raises:
            UserError: If another member's key is of low order, so that the common secret would be known to all.
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        salt, total = round.hash, values.copy()
        for member in round.members:
            if member.key == self.public:
                continue
            try:
                secret = self._key.exchange(X25519PublicKey.from_public_bytes(member.key))
            except ValueError:
                raise UserError("a key of a sum is of low order: its masks would be known to all") from None
            mask = _keystream(secret, salt, len(values))
            total = total + mask if self.public < member.key else total - mask
        return total


def check_key(key: bytes, of: str = "a sum") -> None:
    """Raise UserError unless these are the 32 bytes of an X25519 public key in its one canonical form."""
    if type(key) is not bytes or len(key) != KEY_BYTES or int.from_bytes(key, "little") >= _PRIME:
        raise UserError(f"a key of {of} is invalid: expected {KEY_BYTES} bytes, a number below 2^255 - 19")


def _keystream(secret: bytes, salt: bytes, count: int) -> UInt64[np.ndarray, " n"]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(hashes.SHA256(), 32, salt, _PURPOSE).derive(secret)
    # the key serves this one keystream, so its nonce may be constant
    stream = Cipher(ChaCha20(key, bytes(16)), None).encryptor().update(bytes(8 * count))
    return np.frombuffer(stream, "<u8").astype(np.uint64)


def _verified(member: Announced, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(member.node_key)
        if not isinstance(key, EllipticCurvePublicKey):
            return False
        key.verify(member.signature, text, ECDSA(hashes.SHA256()))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
