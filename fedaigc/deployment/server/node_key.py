"""The key that a request to the door was signed with, as Flower's SuperNodes sign their requests."""

from base64 import b64decode
from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm

from fedaigc.flower_private import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    bytes_to_public_key,
    verify_signature,
)


class KnownKeys:
    """The keys of successful requests to the SuperLink: those of registered devices, if it requires keys.

    A key that is not known yet may still be registered; only the SuperLink decides that.
    """

    # without required keys, every key becomes known
    _MOST = 10_000

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def add(self, headers: Mapping[str, str]) -> None:
        """Remember the key of a successful request with these headers."""
        key = headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER)
        if key is not None:
            if len(self._keys) >= self._MOST:
                self._keys.clear()
            self._keys.add(key)

    def signed(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request with these headers was signed with a known key."""
        key = headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER)
        if key not in self._keys or key is None:
            return False
        return signed_by(headers)


def signed_by(headers: Mapping[str, str]) -> bool:
    """Return whether the signature of a request is that of the key which it names."""
    try:
        key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
        signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
        return verify_signature(bytes_to_public_key(key), headers[TIMESTAMP_HEADER].encode(), signature)
    except (AttributeError, KeyError, TypeError, ValueError, UnsupportedAlgorithm):
        return False
