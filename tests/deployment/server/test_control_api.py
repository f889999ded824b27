"""Another user of the server's machine cannot submit a run, although everything that it needs for it is public.

At b8a6c4d, `flwr run` with a copy of authority.pem was accepted from every user, and the app's code ran as the
server's user.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedaigc.deployment.processes import free_port
from fedaigc.deployment.server.keys import AUTHORITY, make_server_keys
from fedaigc.deployment.server.runs import cancel_runs, going_on
from fedaigc.deployment.server.server import control_environment, start_server, stop_server
from fedaigc.federation.runtime.flower_runtime import run_ids

OTHER_USER = 65534
SUBMITS = """
[project]
name = "evil"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "evil"

[tool.flwr.app.components]
serverapp = "evil:app"
clientapp = "evil:client"
"""
CODE = """
from pathlib import Path
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
client = ClientApp()
app = ServerApp()
@app.main()
def main(grid, context):
    Path({marker!r}).write_text("it ran")
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_other_user() -> None:
    os.setgroups([])
    os.setgid(OTHER_USER)
    os.setuid(OTHER_USER)


@as_root
def test_a_listener_knows_whose_a_connection_is() -> None:
    from fedaigc.federation.runtime.own_user import is_of_own_user, user_of_peer

    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            connect = (
                f"import socket, sys; s = socket.socket({int(family)}); s.connect(({address!r}, {port})); "
                "sys.stdin.read()"
            )
            for user, prepare in ((0, None), (OTHER_USER, as_other_user)):
                command = [shutil.which("python3") or "/usr/bin/python3", "-c", connect]
                if prepare is not None and not Path("/usr/bin/python3").exists():
                    pytest.skip("no Python that the other user may run")
                if prepare is not None:
                    command[0] = "/usr/bin/python3"
                process = subprocess.Popen(command, stdin=subprocess.PIPE, preexec_fn=prepare, cwd="/")
                connection, _ = listener.accept()
                with connection:
                    assert user_of_peer(connection) == user
                    assert is_of_own_user(connection) == (user == 0)
                    process.communicate(b"")
                    # its other end is closed: nobody's, also where the kernel then writes 0
                    assert user_of_peer(connection) is None


def submitted_by(user: int | None, address: str, authority: Path, folder: Path) -> str:
    """Run `flwr run` as another user or as this one, and return its output."""
    home = folder / "flwr"
    home.mkdir(parents=True)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "x"\n\n[superlink.x]\naddress = "{address}"\n'
        f'root-certificates = "{authority}"\n'
    )
    (folder / "app").mkdir()
    (folder / "app" / "pyproject.toml").write_text(SUBMITS)
    (folder / "app" / "evil.py").write_text(CODE.format(marker=str(folder / "ran")))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
        if user is not None:
            os.chown(path, user, user)
    # in a child that imported all it needs while it could still read it
    script = (
        "import os, sys\n"
        "from flwr.cli.app import app\n"
        "import flwr.cli.run.run, flwr.cli.build, flwr.cli.utils, flwr.supercore.control\n"
        + (f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n" if user is not None else "")
        + "sys.argv = ['flwr', 'run', sys.argv[1], 'x']\n"
        "app()\n"
    )
    environment = {**os.environ, "FLWR_HOME": str(home), "HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "app")],
        env={**environment, "FLWR_DISABLE_UPDATE_CHECK": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


@as_root
@pytest.mark.slow
def test_another_user_submits_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp") and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    server = tmp_path / "server"
    make_server_keys(server, ["127.0.0.1"])
    state = start_server(server, "127.0.0.1", free_port())
    try:
        copy = tmp_path / "authority.pem"
        shutil.copyfile(server / AUTHORITY, copy)
        copy.chmod(0o644)
        scratch, environment = control_environment(server, state)
        before = run_ids(scratch, environment)
        said = submitted_by(OTHER_USER, state.superlink, copy, tmp_path / "other")
        assert run_ids(scratch, environment) == before, said
        assert not (tmp_path / "other" / "ran").exists()
        # the same words from the server's own user: the test can fail
        said = submitted_by(None, state.superlink, copy, tmp_path / "own")
        assert len(run_ids(scratch, environment) - before) == 1, said
        cancel_runs(server, state)
        assert not going_on(server, state)
    finally:
        stop_server(server)
