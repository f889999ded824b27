"""A test whether the prompts of several devices are equal, which tells the server only who has the same one.

Each member i multiplies the point G_i of its prompt (`generator`) by a fresh secret number and announces

    Y_i = y_i G_i

which is a random point, whatever the prompt. Two members have a secret in common,

    K_ij = y_i Y_j = y_i y_j G,

if and only if their prompts are equal; else both compute different ones. For every other member, in the order of their
keys, member i says the tag

    t_ij = HKDF-SHA256(K_ij, salt = hash of the test, info = "tag", Y_i, Y_j), cut to 8 bytes

and the server compares t_ij with t_ji. It forwards no tag. This is the exchange of CPace, a password-authenticated key
exchange [CPace], with the prompt as the password, and tags as its key confirmation; unlike there, a member uses one
y_i for all others of a test, so its keys come from one secret and differ by the other member alone.

What it promises, against a server that does what it likes, alone or with members. Tags cannot be searched through a
list of prompts: for one guess it takes a key that was made for this guess *before* the tags are said. Members beside
device i, made up or not, hold one prompt each, so i's tags say which of these prompts is its own, or that none is: with
n members at most log2(n) bits. Nobody has to vouch for the keys. It rests on the Diffie-Hellman problem on Curve25519,
with hash functions as random oracles.

What follows from a match: K_ij also encrypts what one twin sends the other (`twin_packets`), so that a member who was
only said to be equal can open nothing.

References:
    [CPace] Abdalla, Haase, Hesse, "CPace, a balanced composable PAKE", draft of the IRTF's CFRG; analysis: "Security
        analysis of CPace", ASIACRYPT 2021.
"""

import hashlib
import json
import math
from dataclasses import dataclass

from fedaigc.bounds import MAX_EQUALITY_MEMBERS
from fedaigc.collaboration.equality.generator import generator
from fedaigc.collaboration.secure_sum.masks import check_key
from fedaigc.errors import UserError

TAG_BYTES = 8
_PURPOSE = b"fedaigc equality 1"


@dataclass(frozen=True)
class EqualityTest:
    """All that the members of a test must agree on.

    Attributes:
        run: The run.
        number: Random number of the test, in hex.
        keys: The announced keys of all members, the device's own among them, in any order.
    """

    run: str
    number: str
    keys: tuple[bytes, ...]

    @property
    def hash(self) -> bytes:
        """SHA-256 of the test, which is part of all tags and encryption keys."""
        parts = [self.run, self.number, sorted(key.hex() for key in self.keys)]
        return hashlib.sha256(_PURPOSE + json.dumps(parts).encode()).digest()

    @property
    def bits(self) -> float:
        """Bits that one member's tags tell at most: log2 of the number of members."""
        return math.log2(len(self.keys))

    def others(self, own: bytes) -> tuple[bytes, ...]:
        """Return the keys of the other members, in the order of their tags."""
        return tuple(sorted(key for key in self.keys if key != own))

    def check(self, own: bytes) -> None:
        """Check that a device may take part.

        Raises:
            UserError: If there are fewer than two members or too many, if the own key is not listed, or if keys repeat
                or are invalid.
        """
        if not 2 <= len(self.keys) <= MAX_EQUALITY_MEMBERS:
            raise UserError(
                f"an equality test of {len(self.keys)} members: expected 2 to {MAX_EQUALITY_MEMBERS}"
            )
        for key in self.keys:
            check_key(key, "an equality test")
        if len(set(self.keys)) != len(self.keys):
            raise UserError("the keys of an equality test repeat: each member must have its own")
        if own not in self.keys:
            raise UserError("this device's key is not in the list of an equality test")


class BlindedKey:
    """The key of one member for one test.

    Args:
        digest: Digest of the member's prompt.
        run: The run.
        number: Number of the test, in hex.
        private: The secret number of an earlier key; None: a new one.
    """

    def __init__(self, digest: bytes, run: str, number: str, private: bytes | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

        self._key = (
            X25519PrivateKey.generate() if private is None else X25519PrivateKey.from_private_bytes(private)
        )
        point = generator(digest, json.dumps([run, number]).encode())
        self.public = self._key.exchange(X25519PublicKey.from_public_bytes(point))

    @property
    def private(self) -> bytes:
        """The secret number, 32 bytes, for the device's own store."""
        return self._key.private_bytes_raw()

    def tags(self, test: EqualityTest) -> tuple[bytes, ...]:
        """Return the tags for all other members, in the order of `test.others`. `test.check` must have passed.

        Raises:
            UserError: If another member's key is of low order.
        """
        return tuple(self._derived(test, other, b"tag", TAG_BYTES) for other in test.others(self.public))

    def common(self, test: EqualityTest, other: bytes) -> bytes:
        """Return 32 bytes that only members with this prompt can have in common; `other` may be the own key.

        Raises:
            UserError: If the key is not in the test, or of low order.
        """
        if other not in test.keys:
            raise UserError("a key that was no member of this equality test")
        return self._derived(test, other, b"packet", 32)

    def _derived(self, test: EqualityTest, other: bytes, use: bytes, size: int) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        try:
            secret = self._key.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError:
            raise UserError(
                "a key of an equality test is of low order: its secret would be known to all"
            ) from None
        info = b" ".join([_PURPOSE, use, *sorted((self.public, other))])
        return HKDF(hashes.SHA256(), size, test.hash, info).derive(secret)


def twins(test: EqualityTest, tags: dict[bytes, tuple[bytes, ...]]) -> list[tuple[bytes, ...]]:
    """Return the classes of two and more members with equal prompts, by their keys, in the order of the test's keys.

    Args:
        test: The test.
        tags: The tags of each member that gave some, in the order of `test.others`.
    """
    said = {
        (key, other): tag
        for key, given in tags.items()
        for other, tag in zip(test.others(key), given, strict=True)
    }
    found, free = [], [key for key in test.keys if key in tags]
    while free:
        first, *rest = free
        same = [key for key in rest if said[first, key] == said[key, first]]
        if same:
            found.append((first, *same))
        free = [key for key in rest if key not in same]
    return found
