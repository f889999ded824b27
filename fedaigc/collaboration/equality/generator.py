"""The point of Curve25519 that stands for a prompt, by the map Elligator 2.

Two prompts have one point only if their digests are equal, and nobody knows the discrete logarithm of one point to
another. All points lie on the curve and none on its twist, so no bit of a multiple tells which prompt it belongs to.

Source: Bernstein et al., "Elligator: elliptic-curve points indistinguishable from uniform random strings", CCS 2013; as
in RFC 9380, section 6.7.1, with Z = 2, and only the coordinate u.
"""

import hashlib

_PRIME = 2**255 - 19
_A = 486662
_PURPOSE = b"fedaigc equality generator 1"


def generator(digest: bytes, number: bytes) -> bytes:
    """Return the coordinate u of the point of a prompt, 32 bytes, little-endian.

    Args:
        digest: Digest of the prompt.
        number: Number of the test; the same prompt has another point in every test.
    """
    # lengths are constant for one purpose, so the parts cannot be mistaken for each other
    parts = b"".join([_PURPOSE, len(number).to_bytes(2, "little"), number, digest])
    return _mapped(int.from_bytes(hashlib.sha512(parts).digest(), "little") % _PRIME).to_bytes(32, "little")


def on_curve(u: int) -> bool:
    """Return whether u is the coordinate of a point of the curve, and not of its twist."""
    return pow((u * u * u + _A * u * u + u) % _PRIME, (_PRIME - 1) // 2, _PRIME) <= 1


def _mapped(r: int) -> int:
    # 1 + 2 r^2 is never 0: -1/2 is no square
    first = -_A * pow(1 + 2 * r * r, -1, _PRIME) % _PRIME
    second = (-first - _A) % _PRIME
    # both are computed, and exactly one of them lies on the curve
    return first if on_curve(first) else second
