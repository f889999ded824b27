"""Which key a request to the door was signed with, as Flower's SuperNodes sign theirs."""

import binascii
from base64 import b64decode
from collections.abc import Mapping

from fedaigc.flower_private import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    bytes_to_public_key,
    verify_signature,
)


class KnownKeys:
    """The keys whose requests the SuperLink answered well: of registered devices, where keys are asked for.

    A key that is not known yet may still be registered; whether it is, the SuperLink alone decides.
    """

    # a door without keys knows whoever comes
    _MOST = 10_000

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def add(self, headers: Mapping[str, str]) -> None:
        """The SuperLink answered a request with these headers well."""
        key = headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER)
        if key is not None:
            if len(self._keys) >= self._MOST:
                self._keys.clear()
            self._keys.add(key)

    def signed(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers comes from who holds a known key."""
        key = headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER)
        if key not in self._keys or key is None:
            return False
        try:
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            return verify_signature(
                bytes_to_public_key(b64decode(key)), headers[TIMESTAMP_HEADER].encode(), signature
            )
        except (KeyError, ValueError, binascii.Error):
            return False
