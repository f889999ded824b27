"""Which software computes on each machine: a closed list of names, told at hello and kept in the record.

Machines with other versions work together, for the plan and the packets hold what they must agree on; but
figures then repeat only where the versions do, so a difference is written down.
"""

import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fedaigc.bounds import VERSION

PACKAGES = ("fedaigc", "torch", "diffusers", "flwr")
SOFTWARE = ("python", *PACKAGES)
_VERSION = re.compile(VERSION)

Software = Mapping[str, str | None]


def own_software() -> dict[str, str]:
    """The versions of this process, one for each name of SOFTWARE."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def told_software(values: Mapping[str, Any]) -> dict[str, str | None]:
    """The versions among what a client said; None for one that is missing or no version.

    Nothing else of it is taken: the record holds no text of a client's choice.
    """
    return {name: _checked(values.get(name)) for name in SOFTWARE}


def difference(devices: Mapping[int, Software], server: Software) -> str | None:
    """One sentence on the clients that compute with other versions than the server; None without any."""
    found = []
    for name in SOFTWARE:
        others: dict[str, list[int]] = {}
        for client, told in sorted(devices.items()):
            if told[name] != server[name]:
                others.setdefault(told[name] or "unknown", []).append(client)
        found += [
            f"{name} {theirs} on {', '.join(map(str, clients))} (server {server[name]})"
            for theirs, clients in others.items()
        ]
    return f"clients compute with other versions: {'; '.join(found)}" if found else None


def _checked(value: Any) -> str | None:
    return value if isinstance(value, str) and _VERSION.fullmatch(value) else None
