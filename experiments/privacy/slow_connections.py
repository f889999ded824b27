"""Test whether a stranger with many nearly idle connections keeps devices from their server.

    python -m experiments.privacy.slow_connections --output FILE.json

The attacker sends half of a header on 520 connections, and 60 bodies of almost 16 MB that stop before their end, to a
real server with TLS. It reopens every connection that the server closes. Meanwhile, a registered device requests
messages on a persistent connection and on new ones. The results are its waiting times and the growth of the memory of
the server's processes.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import random
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server.keys import AUTHORITY, DEVICE_KEY, make_device_key, make_server_keys
from fedaigc.deployment.server.roster_file import register_device
from fedaigc.deployment.server.server import start_server, stop_server

BODY_BYTES = (16 << 20) - 1
_HEADER = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: server\r\n"
_PART = bytes(1 << 16)
_PAUSE_S = 0.3


@dataclass(frozen=True)
class Attack:
    """An attack by idle connections.

    Attributes:
        headers: Number of connections with half a header.
        bodies: Number of connections with a body that stops after `body_bytes`.
        reopen_s: Mean time between the end of a connection and its reopening, in seconds.
    """

    headers: int
    bodies: int
    body_bytes: int = BODY_BYTES - 1024
    reopen_s: float = 10.0

    @contextlib.contextmanager
    def on(self, port: int, tls: bool) -> Iterator[None]:
        """Run the attack within the context, in a separate process that does not delay the measurement."""
        process = multiprocessing.get_context("spawn").Process(target=self.carry_out, args=(port, tls))
        process.start()
        try:
            yield
        finally:
            process.terminate()
            process.join(30)

    def carry_out(self, port: int, tls: bool) -> None:
        """Run the attack until the process is terminated."""
        # asyncio logs every connection that ends during a send
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        # lower the priority, since a real attack does not use the server's processors
        os.nice(10)
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sizes = self.bodies * [self.body_bytes] + self.headers * [0]

        async def all_of_them() -> None:
            await asyncio.gather(*(self._hold(port, context, size, i) for i, size in enumerate(sizes)))

        asyncio.run(all_of_them())

    async def _hold(self, port: int, context: ssl.SSLContext | None, num_bytes: int, seed: int) -> None:
        pause = random.Random(seed)
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                try:
                    writer.write(_HEADER)
                    if num_bytes:
                        writer.write(b"content-length: %d\r\n\r\n" % BODY_BYTES)
                    for _ in range(0, num_bytes, len(_PART)):
                        writer.write(_PART)
                        await writer.drain()
                        if writer.transport.is_closing():
                            break
                    # until the other side closes the connection
                    while await reader.read(1 << 16):
                        pass
                finally:
                    writer.transport.abort()
            # spread the reopening over time, since a flood would be another attack
            await asyncio.sleep(self.reopen_s * pause.uniform(0.5, 1.5))


@dataclass(frozen=True)
class Waits:
    """Waiting times of a device, one for each try, and the number of failed tries."""

    seconds: list[float]
    failed: int

    def summary(self) -> dict[str, float | int]:
        """Return the figures for a record."""
        ordered = sorted(self.seconds)
        return {
            "tries": len(ordered),
            "failed": self.failed,
            "median_s": round(ordered[len(ordered) // 2], 4),
            "longest_s": round(ordered[-1], 4),
        }


def waits(ask: Callable[[], object], duration_s: float) -> Waits:
    """Repeat `ask` for `duration_s`, and return the waiting times. A try with an HTTP error counts as failed."""
    seconds, failed = [], 0
    until = time.monotonic() + duration_s
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            ask()
        except httpx.HTTPError:
            failed += 1
        seconds.append(time.monotonic() - began)
        time.sleep(_PAUSE_S)
    return Waits(seconds, failed)


@contextlib.contextmanager
def largest_memory(pid: int) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the largest memory of a process and its descendants so far, in bytes."""
    ending, most = threading.Event(), [_memory(pid)]

    def watch() -> None:
        while not ending.wait(0.2):
            most[0] = max(most[0], _memory(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        ending.set()
        thread.join()


def attack_begun(pid: int, num_files: int = 100) -> None:
    """Wait until a process has `num_files` open files, and hence that many connections, and a little longer."""
    deadline = time.monotonic() + 60.0
    while psutil.Process(pid).num_fds() < num_files:
        assert time.monotonic() < deadline, "the attack did not begin"
        time.sleep(0.1)
    time.sleep(3.0)


def _memory(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total


def _device(folder: Path, port: int, keys: Path) -> FleetHttpClient:
    private = load_ssh_private_key((keys / DEVICE_KEY).read_bytes(), None)
    return FleetHttpClient.from_server_address(
        f"127.0.0.1:{port}",
        insecure=False,
        root_certificates=(folder / AUTHORITY).read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, private.public_key()),  # type: ignore[arg-type]
        ],
    )


def measure(attack: Attack, duration_s: float, say: Callable[[str], object] = print) -> dict[str, Any]:
    """Return the figures without and under the attack, against a real server."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, keys = Path(scratch) / "server", Path(scratch) / "keys"
        make_server_keys(folder, ["127.0.0.1"])
        public = make_device_key(keys)
        state = start_server(folder, "127.0.0.1", free_port())
        try:
            known = register_device(folder, state, public, "device")
            private = load_ssh_private_key((keys / DEVICE_KEY).read_bytes(), None)
            kept = _device(folder, state.port, keys)
            kept.ActivateNode(
                ActivateNodeRequest(
                    public_key=public_key_to_bytes(private.public_key()),  # type: ignore[arg-type]
                    heartbeat_interval=1800,
                )
            )
            request = PullMessagesRequest(node=Node(node_id=known.node_id))

            def on_new_connection() -> None:
                with contextlib.closing(_device(folder, state.port, keys)) as device:
                    device.PullMessages(request)

            asks = {
                "kept connection": lambda: kept.PullMessages(request),
                "new connection": on_new_connection,
            }
            say("without the attack")
            before = {name: waits(ask, duration_s / 4).summary() for name, ask in asks.items()}
            base = _memory(state.pid)
            with largest_memory(state.pid) as largest, attack.on(state.port, tls=True):
                say(f"{attack.headers} half-sent headers, {attack.bodies} stalled bodies")
                attack_begun(state.pid)
                under = {name: waits(ask, duration_s / 2).summary() for name, ask in asks.items()}
                grown = largest() - base
            say(f"under the attack: {under}; memory {grown / 1e6:.0f} MB more")
        finally:
            stop_server(folder)
    return {
        "attack": {
            "half-sent headers": attack.headers,
            "stalled bodies": attack.bodies,
            "bytes of each body": attack.body_bytes,
            "reopened after_s": attack.reopen_s,
        },
        "duration_s": duration_s,
        "without": before,
        "under": under,
        "memory_before_MB": round(base / 1e6, 1),
        "memory_grown_MB": round(grown / 1e6, 1),
    }


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--headers", type=int, default=520)
    parser.add_argument("--bodies", type=int, default=60)
    parser.add_argument("--duration", type=float, default=40.0, help="seconds")
    parser.add_argument(
        "--commit", default="", help="commit of the measured code, if it is not this checkout"
    )
    options = parser.parse_args()
    found = measure(Attack(options.headers, options.bodies), options.duration)
    if not (commit := options.commit):
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"commit": commit, **found}, indent=1, sort_keys=True)
    options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
