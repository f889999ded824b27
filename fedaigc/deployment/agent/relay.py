"""The Flower side of a device: a SuperNode, and a loop that passes its messages to the device's agent.

A SuperNode as Flower starts it would run the app package that the server sends. This SuperNode hands its
messages to the loop below instead, which runs no code of the package: it takes a message, asks the agent, and
pushes the reply. The process holds no prompt and no image, and opens nothing of the home but its socket.
"""

import contextlib
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
from flwr.app import Message, RecordDict

from fedaigc.deployment.agent.agent_socket import AgentUnreachable, Request, ask_agent
from fedaigc.deployment.agent.connection import PROXY
from fedaigc.deployment.agent.supernode_tasks import Tasks, UntilAnother
from fedaigc.deployment.hosts import host_of
from fedaigc.deployment.processes import SUPERNODE_LOG, ended_with_parent, free_port, stopped, wait_for_port
from fedaigc.device.replies import Failure
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY
from fedaigc.federation.runtime.environment import flower_environment
from fedaigc.federation.runtime.proxies import proxy_to, shown
from fedaigc.federation.wire.messages import Ask, failure
from fedaigc.flower_private import (
    HeartbeatSender,
    ProtobufClientInterceptor,
    RetryInvoker,
    RunNotRunningException,
    RuntimeHttpClient,
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SubStatus,
    SuperExecAuthHttpInterceptor,
    make_simple_http_retry_invoker,
    make_task_heartbeat_fn_http,
    pull_task_input,
    push_message,
    push_task_output,
)
from fedaigc.storage.private_files import only_for_this_user

_POLL_S = 0.1
_RETRIES_S = 30.0
# imports take minutes on a busy or slow device; a restart would only lose that time
_START_S = 600.0
# the server rejects a SuperNode that returns before it was missed: it retries at growing intervals
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 30.0
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})
_KINDS = {kind.value: kind for kind in Ask}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeSettings:
    """How a device reaches its server.

    Attributes:
        server: host:port of the server's proxy.
        root_certificate: Certificate of the server's authority; None for a server without TLS (for tests in a
            closed network).
        key: The device's private key; it needs TLS.
    """

    server: str
    root_certificate: Path | None
    key: Path | None


def run_relay(home: Path, settings: NodeSettings, scratch: Path) -> None:
    """Run the SuperNode and the loop until the process is stopped; a SuperNode that dies is restarted.

    Args:
        home: Home of the device.
        settings: How to reach the server.
        scratch: Folder for Flower's files.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        began = time.monotonic()
        with _supernode(settings, scratch) as (process, client):
            tasks = Tasks(client)
            while process.poll() is None:
                try:
                    if _next_message(tasks, home, process.args_runtime):
                        continue
                except httpx.HTTPError:
                    pass
                # when its run was stopped, Flower ends a process by a signal or an error beyond Exception
                except (Exception, RunNotRunningException, KeyboardInterrupt) as error:
                    _LOG.warning("dropped a message: %s", type(error).__name__)
                time.sleep(_POLL_S)
        # a SuperNode that worked for a while failed for a new reason
        wait_s = _FIRST_WAIT_S if time.monotonic() - began > 60 else min(2 * wait_s, _LONGEST_WAIT_S)
        _LOG.warning(
            "the SuperNode ended with status %s: restarting it in %.0f s", process.returncode, wait_s
        )
        time.sleep(wait_s)


class _SuperNode(subprocess.Popen[bytes]):
    """A SuperNode, and the address of its runtime API."""

    args_runtime: str = ""


@contextlib.contextmanager
def _supernode(settings: NodeSettings, scratch: Path) -> Iterator[tuple[_SuperNode, RuntimeHttpClient]]:
    port = free_port()
    address = f"127.0.0.1:{port}"
    # other users of this machine may reach the port: messages need the secret
    secret = secrets.token_bytes(32)
    secret_file = scratch / "runtime.secret"
    secret_file.unlink(missing_ok=True)
    descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    command = ["flower-supernode", "--superlink", settings.server, "--isolation", "process"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--superexec-auth-secret-file", str(secret_file)]
    if settings.root_certificate is None:
        command += ["--insecure"]
    else:
        command += ["--root-certificates", str(settings.root_certificate)]
    if settings.key is not None:
        command += ["--auth-supernode-private-key", str(settings.key)]
    proxy = proxy_to(host_of(settings.server), tls=settings.root_certificate is not None)
    with (scratch / SUPERNODE_LOG).open("ab") as log:
        if proxy is not None:
            log.write(f"{PROXY} {shown(proxy)}\n".encode())
            log.flush()
        process = _SuperNode(
            command,
            cwd=scratch,
            env=flower_environment(scratch, 1),
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=ended_with_parent,
        )
    process.args_runtime = address
    proof = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_ACQUIRE)
    client = _runtime_client(address, "SuperExec", proof)
    try:
        wait_for_port(port, process, timeout_s=_START_S)
        yield process, client
    finally:
        client.close()
        stopped(process)


def _runtime_client(
    address: str, component: str, proof: ProtobufClientInterceptor, retries: RetryInvoker | None = None
) -> RuntimeHttpClient:
    """Return a client of the SuperNode's runtime API that acts as `component`, authorized by `proof`."""
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=component), proof],
        retry_invoker=retries,
    )


def _next_message(tasks: Tasks, home: Path, address: str) -> bool:
    """Serve one message if one is waiting; return whether it did."""
    acquired = tasks.next()
    if acquired is None:
        return False
    # the SuperNode is on this machine: if it does not answer for this long, it is gone
    retries = make_simple_http_retry_invoker()
    retries.max_time = _RETRIES_S
    task = _runtime_client(address, "flwr-clientapp", RuntimeTokenHttpInterceptor(acquired.token), retries)
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(task))
    heartbeat.start()
    try:
        message, context, _, _ = pull_task_input(cast(RuntimeHttpClient, UntilAnother(task, tasks)))
        reply = _ask(home, message, str(context.run_config.get(RUN_CONFIG_KEY, "")))
        push_message(task, Message(reply, reply_to=message), context)
        push_task_output(task, context, SubStatus.COMPLETED, "")
    finally:
        retries.max_tries = 1
        if heartbeat.is_running:
            heartbeat.stop()
        task.close()
    return True


def _ask(home: Path, message: Message, config: str) -> RecordDict:
    kind = _KINDS.get(message.metadata.message_type)
    if kind is None:
        return failure(Failure.ORDER_REFUSED)
    try:
        reply = ask_agent(home, Request(kind.value, config, message.content)).content
    except AgentUnreachable as error:
        _LOG.warning("%s", error)
        return failure(Failure.UNREACHABLE)
    return reply if reply is not None else failure(Failure.INTERNAL)


def main(arguments: list[str]) -> None:
    """Run the relay. Arguments: home, scratch folder, server, root certificate, key; "" for a missing one."""
    only_for_this_user()
    home, scratch, server, root_certificate, key = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # httpx would log ten lines per second for polls without a message
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = NodeSettings(
        server, Path(root_certificate) if root_certificate else None, Path(key) if key else None
    )
    run_relay(Path(home), settings, Path(scratch))


if __name__ == "__main__":
    main(sys.argv[1:])
