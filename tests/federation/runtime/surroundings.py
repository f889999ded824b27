"""The environment and the working folder of users for whom much is set that is not meant for a run."""

import os
from pathlib import Path

# a port at which nobody listens
NOBODY = "127.0.0.1:9"
# libraries, folders of this repository, and modules of the standard library that child processes import late
HIDING = (
    "flwr",
    "datasets",
    "diffusers",
    "torch",
    "ray",
    "httpx",
    "strategies",
    "experiments",
    "fedaigc",
    "tests",
)


def hostile_environment(folder: Path) -> dict[str, str]:
    """Variables that name proxies, a Ray cluster, a database and folders which are of no use."""
    long = folder / ("t" * 120)
    long.mkdir(exist_ok=True)
    return {
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "grpc_proxy"), f"http://{NOBODY}"),
        "ALL_PROXY": f"socks5://{NOBODY}",
        "NO_PROXY": "",
        "RAY_ADDRESS": NOBODY,
        "FLWR_DATABASE": str(folder / "no" / "database"),
        "FLWR_HOME": str(folder / "no" / "home"),
        "TMPDIR": str(long),
        "HOME": "/dev/null/home",
        "OMP_NUM_THREADS": "0",
        "LANG": "C",
        "LC_ALL": "C",
        "COLUMNS": "1",
        "NO_COLOR": "1",
        "MPLBACKEND": "no_backend",
        "MPLCONFIGDIR": "/dev/null/matplotlib",
        "TERM": "dumb",
    }


def hiding_folder(parent: Path) -> Path:
    """A folder with packages and modules of a user's own that have the names of what ships."""
    folder = parent / "own"
    folder.mkdir()
    for number, name in enumerate(HIDING):
        text = f"raise RuntimeError('{name} of the user')\n"
        if number % 2:
            (folder / f"{name}.py").write_text(text)
        else:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(text)
    return folder


def inherited(extra: dict[str, str], *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of this process with other variables."""
    return {name: value for name, value in os.environ.items() if name not in without} | extra
