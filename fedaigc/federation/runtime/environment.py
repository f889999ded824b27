"""What child processes inherit from the environment of this one, and what they do not.

An environment belongs to its user: it may name a proxy for other machines, a Ray cluster, or folders with modules
whose names are those of libraries. Processes of a run speak to each other on this machine, in a cluster of their
own, with the libraries of this process.
"""

import os
import secrets
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from fedaigc.federation.runtime.proxies import without_proxy_to_loopback

TAG = "FEDAIGC_LAUNCH"
RAY_ADDRESS = "RAY_ADDRESS"
# Ray creates sockets in its folder, and the path of a socket has at most 107 characters
MAX_RAY_FOLDER = 36
# settings of another launch: Flower's database and folders, the Ray job that this process may belong to
_NOT_INHERITED = ("FLWR_", "RAY_JOB_")


def python_command(module: str) -> list[str]:
    """Return the command that runs a module in this interpreter; nothing in the working folder can hide it."""
    return [sys.executable, "-P", "-m", module]


def python_path() -> str:
    """Return a PYTHONPATH that lets child processes import what this process can.

    The folder of a script and the working folder, which Python puts first, come last: a file `flwr.py` or a
    package `datasets` of a user there would hide the library of that name. Folders that the user's own PYTHONPATH
    names keep their places.
    """
    here = Path.cwd()
    own = {str(here)}
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None:
        own.add(str(Path(script).absolute().parent))
    named = {str(here / entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    # in a checkout that is not installed, the working folder holds this package
    last = own - named - {str(Path(__file__).parents[3])}
    entries = list(dict.fromkeys(str(here / entry) for entry in sys.path))
    ordered = [entry for entry in entries if entry not in last] + [
        entry for entry in entries if entry in last
    ]
    return os.pathsep.join(ordered)


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child process that speaks to others on this machine.

    Args:
        environment: What to start from; None: that of this process.
    """
    return without_proxy_to_loopback(os.environ if environment is None else environment) | {
        "PYTHONPATH": python_path()
    }


def flower_environment(
    scratch: Path,
    threads: int,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment for all processes of a run.

    Nothing is installed, reported or downloaded, and all files lie in `scratch`. Loopback is reached without a
    proxy. The run has a Ray cluster of its own, whatever RAY_ADDRESS says.

    Args:
        scratch: Folder for the files of Flower and Ray.
        threads: Number of threads of each process.
        environment: What to start from; None: the environment of this process.
    """
    settings = {
        "FLWR_HOME": str(scratch / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # further ports of a SuperLink, on which no one would check who connects
        "FLWR_INTERNAL_GRPC_CONTROL_API": "0",
        "FLWR_INTERNAL_GRPC_FLEET_API": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        # else every process would print advice on torchvision
        "TRANSFORMERS_VERBOSITY": "error",
        # marks all processes of this launch, including those that detach from their parent
        TAG: uuid.uuid4().hex,
    }
    # Ray's ports accept code from anyone who knows the token
    settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    if len(str(scratch)) <= MAX_RAY_FOLDER:
        settings["RAY_TMPDIR"] = str(scratch)
    inherited = {
        name: value
        for name, value in child_environment(environment).items()
        if name != RAY_ADDRESS and not name.startswith(_NOT_INHERITED)
    }
    # Flower starts its components by name
    path = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")])
    return {**inherited, **settings, "PATH": path}
