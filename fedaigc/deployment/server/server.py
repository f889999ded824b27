"""A server of devices: Flower's SuperLink, reachable on this machine only, and the door in front of it.

The folder of a server holds its keys, the database of the SuperLink, the client of each device, and the state
of the running process. A SuperLink that dies is restarted with its database.
"""

import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from pydantic import ConfigDict, ValidationError, with_config

from fedaigc.deployment.hosts import host_name
from fedaigc.deployment.processes import (
    alive,
    birth,
    free_port,
    keep_short,
    killed_with_parent,
    stopped,
    wait_for_port,
)
from fedaigc.deployment.server.clocks import CLOCKS, Clocks
from fedaigc.deployment.server.door import door_server
from fedaigc.deployment.server.keys import AUTHORITY, SERVER_CERTIFICATE, SERVER_KEY
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.server_config import FOLDER_VARIABLE
from fedaigc.federation.runtime.environment import child_environment, flower_environment, python_command
from fedaigc.federation.runtime.superlink import CONNECTION, SUPERLINK
from fedaigc.storage.atomic_file import write_file, write_json
from fedaigc.storage.file_lock import locked
from fedaigc.storage.private_files import (
    PRIVATE_FILE,
    close_files,
    only_for_this_user,
    private_files,
    private_folder,
)
from fedaigc.validation import typed_json

STATE = "server.json"
LOG = "server.log"
SUPERLINK_LOG = "superlink.log"
RUN_CONFIGS = "run-configs"
_LOCK = ".server.lock"
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 30.0
_LONGEST_PAUSE_S = 30.0


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ServerState:
    """A running server.

    Attributes:
        pid: Process id.
        began: Start time of the process, see `birth`.
        host: Address that the door listens on.
        port: Port of the door.
        superlink: host:port of the SuperLink, reachable on this machine only.
        tls: Whether the server uses TLS and keys.
    """

    pid: int
    began: float
    host: str
    port: int
    superlink: str
    tls: bool


def server_state(folder: Path) -> ServerState | None:
    """Return the running server of a folder, or None.

    Raises:
        DamagedFile: If the file with the state cannot be read.
    """
    path = folder / STATE
    try:
        state = typed_json(ServerState, path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DamagedFile(f"{path} is damaged: remove it") from error
    return state if alive(state.pid, state.began) else None


def start_server(folder: Path, host: str, port: int, *, insecure: bool = False) -> ServerState:
    """Start a server in the background and wait until it answers.

    Args:
        folder: Folder of the server.
        host: Address to listen on.
        port: Port for the devices.
        insecure: Run without TLS and keys, for tests in a closed network.

    Raises:
        UserError: If the keys are missing, a server already runs in this folder, the port is in use, or the
            server does not start (with the end of its log).
    """
    host = host_name(host, "--host")
    if not insecure and not (folder / SERVER_CERTIFICATE).exists():
        raise UserError(f"{folder} has no keys: make them with `fedaigc keys server {folder} --host NAME`")
    busy = f"another command starts or stops the server in {folder}: try again when it has ended"
    close_server_folder(folder)
    with locked(folder / _LOCK, busy=busy, patience_s=_STOP_TIMEOUT_S):
        return _start(folder, host, port, insecure=insecure)


def _start(folder: Path, host: str, port: int, *, insecure: bool) -> ServerState:
    if server_state(folder) is not None:
        raise UserError(f"a server is already running in {folder}: `fedaigc server stop {folder}` ends it")
    _check_free(host, port)
    for name in (STATE, CLOCKS):
        (folder / name).unlink(missing_ok=True)
    command = [*python_command("fedaigc.deployment.server.server"), str(folder.absolute()), host, str(port)]
    command += ["insecure"] if insecure else []
    with private_files(), (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        state = server_state(folder)
        if state is not None and state.pid == process.pid:
            return state
        time.sleep(0.2)
    stopped(process)
    log_end = (folder / LOG).read_text(errors="replace")[-2000:]
    raise UserError(f"the server did not start:\n{log_end}")


def _check_free(host: str, port: int) -> None:
    """Raise UserError if listening on this host and port fails."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # as the door does: ports in TIME_WAIT after an earlier server are no obstacle
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error


def stop_server(folder: Path) -> bool:
    """Stop the server of a folder; False if none runs."""
    if server_state(folder) is None:
        return False
    # a server that is started meanwhile keeps its state
    with locked(folder / _LOCK):
        return _stop(folder)


def _stop(folder: Path) -> bool:
    state = server_state(folder)
    if state is None:
        return False
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while alive(state.pid, state.began) and time.monotonic() < deadline:
        time.sleep(0.1)
    if alive(state.pid, state.began):
        os.kill(state.pid, signal.SIGKILL)
    (folder / STATE).unlink(missing_ok=True)
    return True


def close_server_folder(folder: Path) -> None:
    """Create a server's folder for its user only; restrict files that an earlier version left readable."""
    private_folder(folder)
    close_files(folder, "server*.log", "server.json", "server.key", "superlink.db*", "devices.json")


def control_environment(folder: Path, state: ServerState) -> tuple[Path, dict[str, str]]:
    """Prepare `flwr` to talk to a server as `CONNECTION`.

    Returns:
        A scratch folder, and the environment for `flwr`.

    Raises:
        UserError: If the server runs as another user, whose SuperLink would not answer.
    """
    user = psutil.Process(state.pid).uids().effective
    if user != os.geteuid():
        raise UserError(f"the server in {folder} runs as user {user}: run its commands as that user")
    scratch = folder / "flower"
    home = private_folder(scratch / "cli")
    trust = f'root-certificates = "{(folder / AUTHORITY).absolute()}"' if state.tls else "insecure = true"
    with private_files():
        text = (
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{state.superlink}"\n{trust}\n'
        )
        # other commands may be reading it
        write_file(home / "config.toml", text.encode())
    environment = flower_environment(scratch.absolute(), 1) | {"FLWR_HOME": str(home.absolute())}
    return scratch, environment


def serve_forever(folder: Path, host: str, port: int, *, insecure: bool) -> None:
    """Run SuperLink and door until SIGTERM or SIGINT.

    Args:
        folder: Folder of the server.
        host: Address to listen on.
        port: Port for the devices.
        insecure: Run without TLS and keys.

    Raises:
        UserError: If the server does not start, or the door ends.
    """
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    scratch = folder / "flower"
    shutil.rmtree(scratch, ignore_errors=True)
    private_folder(scratch)
    link_port = free_port()
    trusted = None if insecure else ssl.create_default_context(cafile=str(folder / AUTHORITY))
    upstream = f"{'http' if insecure else 'https'}://127.0.0.1:{link_port}"
    certificate = None if insecure else (folder / SERVER_CERTIFICATE, folder / SERVER_KEY)
    _raise_limit_of_files()
    try:
        proxy, sockets = door_server(upstream, trusted, host, port, certificate, Clocks(folder))
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    link = _start_superlink(folder, scratch, link_port, insecure=insecure)
    thread = threading.Thread(target=proxy.run, kwargs={"sockets": sockets}, name="door", daemon=True)
    thread.start()
    try:
        wait_for_port(link_port, link)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not proxy.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        if link.poll() is not None or not proxy.started:
            raise UserError(f"the server did not start on {host}:{port}: see {scratch / SUPERLINK_LOG}")
        pid = os.getpid()
        state = ServerState(pid, birth(pid), host, port, f"127.0.0.1:{link_port}", not insecure)
        write_json(folder / STATE, asdict(state))
        pause_s = 1.0
        while not ending.wait(0.5):
            for log in (folder / LOG, scratch / SUPERLINK_LOG):
                keep_short(log)
            if not thread.is_alive():
                raise UserError("the door ended unexpectedly: see the messages above")
            if link.poll() is not None:
                if ending.wait(pause_s):
                    break
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                print(f"the SuperLink ended with status {link.returncode}: restarting it", flush=True)
                link = _start_superlink(folder, scratch, link_port, insecure=insecure)
    finally:
        proxy.should_exit = True
        stopped(link)
        thread.join(5.0)
        (folder / STATE).unlink(missing_ok=True)


def _raise_limit_of_files() -> None:
    """Raise the limit of open files: each connection needs one at the door and one behind it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _start_superlink(folder: Path, scratch: Path, port: int, *, insecure: bool) -> "subprocess.Popen[bytes]":
    database = folder / "superlink.db"
    # it holds updates and latents of devices: only the server's owner may read it and SQLite's other files
    database.touch(mode=PRIVATE_FILE)
    database.chmod(PRIVATE_FILE)
    command = [*SUPERLINK, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--database", str(database), "--disable-runtime-dependency-installation"]
    if insecure:
        command += ["--insecure"]
    else:
        command += ["--ssl-certfile", str(folder / SERVER_CERTIFICATE)]
        command += ["--ssl-keyfile", str(folder / SERVER_KEY), "--ssl-ca-certfile", str(folder / AUTHORITY)]
        command += ["--enable-supernode-auth"]
    with (scratch / SUPERLINK_LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=scratch,
            # its ServerApps inherit the variable and read their runs' configurations from that folder
            env=flower_environment(scratch, 1) | {FOLDER_VARIABLE: str((folder / RUN_CONFIGS).absolute())},
            stdout=log,
            stderr=subprocess.STDOUT,
            # a later SuperLink would find the database in use
            preexec_fn=killed_with_parent,
        )


if __name__ == "__main__":
    only_for_this_user()
    try:
        serve_forever(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), insecure="insecure" in sys.argv[4:])
    except UserError as error:
        sys.exit(str(error))
