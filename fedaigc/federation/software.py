"""Software versions of each machine: a fixed list of packages, reported at hello and stored in the record.

Machines with different versions can work together, because the plan and the packets contain everything that they
must agree on. Results are reproducible only with the same versions, so the record contains any difference.
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
    """Return the versions of this process, one for each name in `SOFTWARE`."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def told_software(values: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the versions that a client reported, with None for missing and malformed ones.

    Other values are dropped, so that the record contains no text of a client's choice.
    """
    return {name: _checked(values.get(name)) for name in SOFTWARE}


def difference(devices: Mapping[int, Software], server: Software) -> str | None:
    """Return one sentence on the clients whose versions differ from the server's, or None if all agree."""
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
