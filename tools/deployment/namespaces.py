"""Simulated machines: network namespaces with links of 20 Mbit/s between a server and three devices, or among devices.

They need root, `ip` and `tc`. If `nft` is installed, one percent of the packets to the devices is lost.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

SERVER = "fedaigc-server"
ADDRESS = "10.77.0.1"
DEVICES = 3
_RATE = ("tbf", "rate", "20mbit", "burst", "32kbit", "latency", "400ms")
_LOSS = """
table inet fedaigc {
  chain input {
    type filter hook input priority 0;
    meta l4proto tcp numgen random mod 100 < 1 drop
  }
}
"""


def possible() -> bool:
    """Return whether this machine can create the namespaces."""
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("ip", "tc"))


def inside(namespace: str, *command: str) -> list[str]:
    """Return the command that runs `command` in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def device(number: int) -> str:
    """Return the namespace of a device."""
    return f"fedaigc-device{number}"


def address(number: int) -> str:
    """Return the address of a device."""
    return f"10.77.0.{10 + number}"


@contextmanager
def namespaces(devices: int = DEVICES, *, among: bool = False) -> Iterator[bool]:
    """Create namespaces for a server and for devices, within the context.

    Args:
        devices: Number of devices.
        among: Whether devices reach each other; otherwise they reach only the server.

    Yields:
        Whether packets are lost.
    """
    _remove(devices)
    lossy = shutil.which("nft") is not None
    try:
        _run("ip", "netns", "add", SERVER)
        _in(SERVER, "ip", "link", "set", "lo", "up")
        _in(SERVER, "ip", "link", "add", "br0", "type", "bridge")
        _in(SERVER, "ip", "address", "add", f"{ADDRESS}/24", "dev", "br0")
        _in(SERVER, "ip", "link", "set", "br0", "up")
        for number in range(devices):
            name, here, there = device(number), f"dev{number}", f"srv{number}"
            _run("ip", "netns", "add", name)
            _in(SERVER, "ip", "link", "add", there, "type", "veth", "peer", "name", here, "netns", name)
            _in(SERVER, "ip", "link", "set", there, "master", "br0")
            _in(SERVER, "ip", "link", "set", there, "up")
            if not among:
                _in(SERVER, "ip", "link", "set", there, "type", "bridge_slave", "isolated", "on")
            _in(name, "ip", "link", "set", "lo", "up")
            _in(name, "ip", "address", "add", f"{address(number)}/24", "dev", here)
            _in(name, "ip", "link", "set", here, "up")
            _in(SERVER, "tc", "qdisc", "add", "dev", there, "root", *_RATE)
            _in(name, "tc", "qdisc", "add", "dev", here, "root", *_RATE)
            if lossy:
                subprocess.run(inside(name, "nft", "-f", "-"), input=_LOSS, text=True, check=True)
        yield lossy
    finally:
        _remove(devices)


def _remove(devices: int) -> None:
    for name in (SERVER, *(device(number) for number in range(devices))):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _in(namespace: str, *command: str) -> None:
    _run(*inside(namespace, *command))
