"""The command line where the environment and the working folder are unusual."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.federation.runtime.surroundings import hiding_folder, hostile_environment, inherited

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-P", "-m", "fedaigc.cli.main")
IMPORT = "import sys; sys.path.insert(1, sys.argv[1]); import fedaigc; print(len(fedaigc.strategy_names()))"


def said(
    *arguments: str, folder: Path, environment: dict[str, str], status: int = 0
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=inherited(environment | {"PYTHONPATH": str(ROOT)}, without=("PYTHONSAFEPATH",)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("encoding", [pytest.param("ascii", marks=pytest.mark.slow), "latin-1"])
def test_commands_work_in_a_hostile_environment(tmp_path: Path, encoding: str) -> None:
    folder = hiding_folder(tmp_path)
    environment = hostile_environment(tmp_path) | {"PYTHONIOENCODING": encoding}
    assert "fedit" in said("strategies", folder=folder, environment=environment | {"COLUMNS": "100"}).stdout
    home = tmp_path / "home"
    added = said("device", "add-prompt", str(home), "ein Müsli → ok", folder=folder, environment=environment)
    (task,) = re.findall("[0-9a-f]{16}", added.stdout)
    assert task in said("device", "queue", str(home), folder=folder, environment=environment).stdout


def test_the_width_of_a_terminal_may_be_anything(tmp_path: Path) -> None:
    for columns in ("1", "0", "-3", "wide", "100000"):
        said("--help", folder=tmp_path, environment={"COLUMNS": columns})


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1"; rmdir "$1"; shift; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", str(gone), *COMMAND, "config"],
        env=inherited({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: the working folder no longer exists: change to another one\n"


@pytest.mark.slow
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """/dev/full refuses every byte."""
    done = said(
        "profile", "--output", "/dev/full/x", "--repeats", "1", folder=tmp_path, environment={}, status=2
    )
    assert done.stderr.startswith("error: /dev/full")


def imported(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = inherited({}, without=("PYTHONPATH", "PYTHONSAFEPATH"))
    (folder / "script.py").write_text(script)
    return subprocess.run(
        [sys.executable, "script.py", str(ROOT)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_module_of_a_user_that_hides_a_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "strategies").mkdir()
    for name in ("strategies", "experiments", "tests"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError\n")
    # a folder of pictures hides nothing, nor do names of this repository
    done = imported(IMPORT, tmp_path)
    assert int(done.stdout) > 20, done.stderr
    (tmp_path / "datasets" / "__init__.py").touch()
    done = imported(IMPORT, tmp_path)
    assert f"{tmp_path / 'datasets' / '__init__.py'} hides the library of that name" in done.stderr
    (tmp_path / "datasets" / "__init__.py").unlink()
    (tmp_path / "flwr.py").touch()
    assert f"{tmp_path / 'flwr.py'} hides the library of that name" in imported(IMPORT, tmp_path).stderr
