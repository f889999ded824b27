"""A device as a resident process: the agent on its socket, and the relay that talks to the server."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fedaigc.deployment.agent.agent import Agent, AgentSettings, listening
from fedaigc.deployment.agent.connection import CONNECTING, PROXY, connection
from fedaigc.deployment.hosts import host_and_port, host_of
from fedaigc.deployment.page.serving import forget_page, serving_page
from fedaigc.deployment.processes import (
    RELAY_LOG,
    SUPERNODE_LOG,
    begin_anew,
    ended_with_parent,
    keep_short,
    stopped,
)
from fedaigc.deployment.server.keys import DEVICE_KEY
from fedaigc.errors import UserError
from fedaigc.federation.runtime.environment import child_environment, python_command
from fedaigc.federation.runtime.proxies import proxy_to, shown, through
from fedaigc.storage.private_files import private_files, private_folder

_RELAY_PAUSE_S = 2.0


def run_device(
    home: Path,
    settings: AgentSettings,
    *,
    server: str,
    authority: Path | None,
    insecure: bool,
    page_port: int | None,
    say: Callable[[str], object],
) -> None:
    """Run the agent of a device until SIGTERM or SIGINT.

    Args:
        home: Home of the device.
        settings: Settings of the owner.
        server: host:port of the server; "" for none, then only the socket answers.
        authority: Certificate of the server's authority.
        insecure: Allow a server without TLS, for tests in a closed network.
        page_port: Port of the owner's page; 0: any free port, None: no page.
        say: Called with each line of output.

    Raises:
        UserError: If another agent already serves this home, the server's authority or the device's key is
            missing, `server` is not host:port, or the environment names a proxy for it that cannot be used.
    """
    server = host_and_port(server, "--server") if server else ""
    tls = authority is not None
    proxy = proxy_to(host_of(server), tls=tls) if server else None
    key = home / "keys" / DEVICE_KEY
    if server and authority is None and not insecure:
        raise UserError("give --authority authority.pem of the server, or --insecure in a closed network")
    if authority is not None and not authority.is_file():
        raise UserError(
            f"{authority} does not exist: copy it from the server, where `fedaigc keys server` creates it"
        )
    if authority is not None and not key.is_file():
        raise UserError(f"{key} does not exist: create it with `fedaigc keys device {home}`")
    agent = Agent(home, settings)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with listening(agent) as socket, _page(agent, page_port, say):
        thread = threading.Thread(target=socket.serve_forever, daemon=True)
        thread.start()
        say(
            f"agent of {home}: client {settings.client}, base model {agent.base_hash()[:16]}, pid {os.getpid()}"
        )
        if proxy is not None:
            say(f"server {server}: reached {PROXY} {shown(proxy)}, which the environment names")
        try:
            _supervise(home, server, authority, key, through(proxy, tls=tls), ending, say)
        finally:
            socket.shutdown()


@contextlib.contextmanager
def _page(agent: Agent, port: int | None, say: Callable[[str], object]) -> Iterator[None]:
    """Serve the owner's page while the agent runs."""
    # even without a page: a killed agent may have left its address
    forget_page(agent.home)
    if port is None:
        yield
        return
    with serving_page(agent.home, agent.status, port) as url:
        say(f"page (keep this address private): {url}")
        yield


def _supervise(
    home: Path,
    server: str,
    authority: Path | None,
    key: Path,
    environment: Mapping[str, str],
    ending: threading.Event,
    say: Callable[[str], object],
) -> None:
    """Keep a relay running, if a server is given, until `ending` is set; report changes of the connection."""
    relay: subprocess.Popen[bytes] | None = None
    # the log of an earlier agent's SuperNode does not describe this connection
    begin_anew(home / "relay" / SUPERNODE_LOG)
    said: str | None = CONNECTING
    try:
        while not ending.wait(0.2):
            if not server:
                continue
            for log in (RELAY_LOG, SUPERNODE_LOG):
                keep_short(home / "relay" / log)
            news = connection(home)
            if news not in (None, CONNECTING, said):
                say(f"server {server}: {news}")
                said = news
            if relay is not None and relay.poll() is not None and ending.wait(_RELAY_PAUSE_S):
                break
            if relay is None or relay.poll() is not None:
                relay = _start_relay(home, server, authority, key, environment)
    finally:
        if relay is not None:
            stopped(relay)


def _start_relay(
    home: Path, server: str, authority: Path | None, key: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    scratch = private_folder(home.absolute() / "relay")
    arguments = [str(home.absolute()), str(scratch), server]
    arguments += ["", ""] if authority is None else [str(authority.absolute()), str(key.absolute())]
    with private_files(), (scratch / RELAY_LOG).open("ab") as log:
        return subprocess.Popen(
            [*python_command("fedaigc.deployment.agent.relay"), *arguments],
            env=child_environment(environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=ended_with_parent,
        )
