"""Whether a device has reached its server, read from the log of its SuperNode."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

from fedaigc import flower_private
from fedaigc.deployment.processes import SUPERNODE_LOG

CONNECTED = "connected"
CONNECTING = "connecting"
LOST = "no answer, retrying"
TURNED_AWAY = (
    "rejected, retrying: the device's key is not registered on the server (`fedaigc server add`), or the "
    "server has not yet noticed that the device was disconnected, which takes up to a minute"
)
OTHER_AUTHORITY = (
    "not trusted, retrying: the server's certificate does not match this authority.pem, or was created for "
    "another --host"
)
WRONG_CLOCK = (
    "not trusted, retrying: the server's certificate {state} by the clock of this device, which shows {now} UTC: "
    "set the clock, for instance by NTP; if it is right, the server needs new keys (`fedaigc keys server`)"
)
FAILED = "failed, retrying"
PROXY = "through the proxy"
_TAIL_BYTES = 65536
# what the door replies (`deployment.server.clocks`)
_CLOCK = re.compile(r"the clock of this device is .*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Flower's log lines and the state of the connection that they mean; the last line found counts
_NEWS = (
    (flower_private.STARTING, CONNECTING),
    (flower_private.NODE_ID, CONNECTED),
    (flower_private.CONNECTED, CONNECTED),
    (flower_private.RECEIVED, CONNECTED),
    (flower_private.SENT, CONNECTED),
    (flower_private.ATTEMPT_FAILED, LOST),
    (flower_private.ACTIVATION_FAILED, TURNED_AWAY),
    (flower_private.CERTIFICATE_REFUSED, OTHER_AUTHORITY),
    (flower_private.CERTIFICATE_NOT_YET_VALID, WRONG_CLOCK.format(state="is not valid yet", now="{now}")),
    (flower_private.CERTIFICATE_EXPIRED, WRONG_CLOCK.format(state="has expired", now="{now}")),
    (flower_private.EXIT_CODE, FAILED),
)


def connection(home: Path) -> str | None:
    """Return the SuperNode's last reported connection state in words; None if it has reported none yet."""
    path = home / "relay" / SUPERNODE_LOG
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = _COLOURS.sub("", file.read().decode(errors="replace")).splitlines()
    except FileNotFoundError:
        return None
    found, way = None, ""
    for line in lines:
        if line.startswith(PROXY):
            way = f" ({line})"
        for text, meaning in _NEWS:
            if text in line:
                # the log shows an exit code before its reason, which is more specific
                found = meaning if text != flower_private.EXIT_CODE else f"{meaning}: see {path}"
        clock = _CLOCK.search(line)
        if clock is not None:
            found = f"refused, retrying: {clock.group()}"
    if found is None:
        return None
    return found.replace("{now}", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}") + way
