"""Whether a device has reached its server, by what its SuperNode wrote into its log."""

import os
import re
from pathlib import Path

from fedaigc import flower_private
from fedaigc.deployment.processes import SUPERNODE_LOG

CONNECTED = "connected"
CONNECTING = "connecting"
LOST = "no answer, tries again"
TURNED_AWAY = (
    "turned away, tries again: the device's key is not registered there (`fedaigc server add`), or the "
    "server has not noticed yet that the device was gone, which takes up to a minute"
)
OTHER_AUTHORITY = (
    "not trusted, tries again: the server's certificate does not fit this authority.pem, or was made for "
    "another --host"
)
_TAIL_BYTES = 65536
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Flower's lines, and what they say of the connection; the last one that is there holds
_NEWS = (
    (flower_private.STARTING, CONNECTING),
    (flower_private.NODE_ID, CONNECTED),
    (flower_private.CONNECTED, CONNECTED),
    (flower_private.RECEIVED, CONNECTED),
    (flower_private.SENT, CONNECTED),
    (flower_private.ATTEMPT_FAILED, LOST),
    (flower_private.ACTIVATION_FAILED, TURNED_AWAY),
    (flower_private.CERTIFICATE_REFUSED, OTHER_AUTHORITY),
    (flower_private.EXIT_CODE, "failed, tries again"),
)


def connection(home: Path) -> str | None:
    """What the SuperNode last said of its way to the server, in words; None when it said nothing yet."""
    path = home / "relay" / SUPERNODE_LOG
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = _COLOURS.sub("", file.read().decode(errors="replace")).splitlines()
    except FileNotFoundError:
        return None
    found = None
    for line in lines:
        for text, meaning in _NEWS:
            if text in line:
                # a code comes before its reason, which says more
                found = meaning if text != flower_private.EXIT_CODE else f"{meaning}: see {path}"
    return found
