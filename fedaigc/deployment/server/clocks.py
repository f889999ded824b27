"""Clocks of devices that differ too much from the server's.

A SuperNode signs the time of each request. Flower admits a request that is at most 5 s ahead of the server and at
most 305 s behind it, refuses others without a reason, and the SuperNode ends. The door measures the difference
first, so that the device is told the seconds and the server can report them.
"""

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedaigc.deployment.server.node_key import signed_by
from fedaigc.errors import DamagedFile
from fedaigc.flower_private import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from fedaigc.storage.atomic_file import write_json

CLOCKS = "clocks.json"
# at most as often is the list of devices read, and a difference of one device written
_PAUSE_S = 2.0


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Difference:
    """The last refusal of a device.

    Attributes:
        ahead_s: Seconds by which the device's clock was ahead of the server's; negative: behind.
        at: Time of the refusal in seconds since the epoch, by the server's clock.
    """

    ahead_s: float
    at: float


_ACCEPTED = (
    f"which accepts at most {SYSTEM_TIME_TOLERANCE} s ahead and {TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE} s "
    "behind: set the clock of the device, for instance by NTP"
)
_DIFFERENCES = TypeAdapter(dict[str, Difference])


def key_digest(key: str) -> str:
    """Return the short name of a public key, given as in the header of a request."""
    return sha256(key.encode()).hexdigest()[:16]


def told(ahead_s: float) -> str:
    """Return the sentence about a device's clock, for the log of its SuperNode."""
    return f"the clock of this device is {_way(ahead_s)} that of the server, {_ACCEPTED}"


def reported(difference: Difference) -> str:
    """Return what `fedaigc server status` says of a device's clock."""
    when = datetime.fromtimestamp(difference.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"its clock is {_way(difference.ahead_s)} that of this server (last at {when} UTC), {_ACCEPTED}"


def _way(ahead_s: float) -> str:
    return f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'}"


class Clocks:
    """What a door knows of the clocks of devices.

    Args:
        folder: Folder of the server, which keeps the differences of registered devices; None: none are kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._found: dict[str, Difference] = {}
        self._registered: set[str] = set()
        self._read_at = -math.inf

    def refused(self, headers: Mapping[str, str]) -> float | None:
        """Return the seconds by which the clock of a request is ahead, where it differs too much; else None."""
        try:
            signed_at = datetime.fromisoformat(headers[TIMESTAMP_HEADER])
            ahead_s = (signed_at - datetime.now(UTC)).total_seconds()
        except (KeyError, ValueError, TypeError, OverflowError):
            return None  # the SuperLink decides
        if -(TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE) < ahead_s < SYSTEM_TIME_TOLERANCE:
            return None
        self._note(headers, ahead_s)
        return ahead_s

    def _note(self, headers: Mapping[str, str], ahead_s: float) -> None:
        if self._folder is None:
            return
        key, now = key_digest(headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER, "")), time.time()
        before = self._found.get(key)
        if (before is not None and abs(now - before.at) < _PAUSE_S) or not self._knows(key):
            return
        if signed_by(headers):
            self._found[key] = Difference(round(ahead_s, 1), now)
            write_json(self._folder / CLOCKS, {name: asdict(entry) for name, entry in self._found.items()})

    def _knows(self, key: str) -> bool:
        """Return whether a key is that of a registered device; others leave nothing on this machine."""
        # imported here: the list of devices belongs to a running server, of which this is a part
        from fedaigc.deployment.server.roster_file import known_devices

        if self._folder is not None and time.monotonic() - self._read_at > _PAUSE_S:
            self._read_at = time.monotonic()
            with contextlib.suppress(DamagedFile):
                self._registered = {device.key for device in known_devices(self._folder)}
        return key in self._registered


def differences(folder: Path) -> dict[str, Difference]:
    """Return the last refusals of a server by `key_digest`; none where the file is missing or damaged."""
    try:
        return _DIFFERENCES.validate_json((folder / CLOCKS).read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}
