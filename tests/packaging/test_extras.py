"""Packages of extras: what needs them says so in one sentence, and everything else works without them."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from fedaigc.extras import PACKAGES, Extra

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# where the packages of an extra are imported, and nowhere else
ROOMS: dict[Extra, tuple[str, ...]] = {
    "discovery": ("fedaigc/deployment/peer",),
    "peer": ("fedaigc/deployment/peer",),
    "perceptual": ("fedaigc/metrics",),
    "plots": ("fedaigc/study/results", "fedaigc/semantics/denoiser", "fedaigc/federation/output"),
    "radio": ("fedaigc/wireless",),
    "server": ("fedaigc/deployment", "fedaigc/collaboration"),
    "tensorboard": ("fedaigc/federation/output",),
}
# a room that as a whole cannot be imported without its extra
WHOLE: set[Extra] = {"server"}
EXTRA_OF = {package: extra for extra, packages in PACKAGES.items() for package in packages}
# slow: it reads the list of files of every installed distribution
INSTALLED = packages_distributions()
FILES = sorted([*(ROOT / "fedaigc").rglob("*.py"), *(ROOT / "strategies").glob("*.py")])
# Flower itself imports those of `server` for every run, so that only commands without a run can lack them
OF_FLOWER = set(PACKAGES["server"])
ABSENT = sorted(EXTRA_OF.keys() - OF_FLOWER)

# runs commands of the command line in a process for which some packages are not installed
PROGRAM = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout

class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, *where):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, *where)

absent, commands = map(json.loads, sys.argv[1:])
sys.meta_path[:] = map(Without, sys.meta_path)
from fedaigc.cli.main import main
for command in commands:
    sys.argv = ["fedaigc", *command]
    status, told = 0, io.StringIO()
    with redirect_stderr(told), redirect_stdout(told):
        try:
            main()
        except SystemExit as error:
            status = error.code or 0
    print("DONE " + json.dumps([status, told.getvalue()]))
print("LOADED " + json.dumps([name for name in absent if name in sys.modules]))
"""


def names_of(requirements: Sequence[str]) -> set[str]:
    """Return the distributions that requirements name."""
    found = (re.match(r"[A-Za-z0-9._-]+", each) for each in requirements)
    return {re.sub(r"[-_.]+", "-", match.group()).lower() for match in found if match is not None}


def imports(node: ast.AST, *, late: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each imported module, and whether its import waits for a call or for a type checker."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or "", late
        else:
            waits = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from imports(child, late=late or waits)


def complaints(file: str, code: str) -> list[str]:
    """Return what is wrong with the imports of a module, given by its path and its code."""
    core, found = names_of(PROJECT["dependencies"]), []
    for module, late in imports(ast.parse(code)):
        package = module.partition(".")[0]
        extra = EXTRA_OF.get(package)
        if extra is not None:
            inside = any(file.startswith(f"{room}/") for room in ROOMS[extra])
            if not inside or not (late or extra in WHOLE):
                found.append(f"{file} imports {module} of the extra {extra}")
        elif package not in sys.stdlib_module_names | {"fedaigc", "strategies"}:
            sources = {re.sub(r"[-_.]+", "-", name).lower() for name in INSTALLED.get(package, [])}
            if not sources & core:
                found.append(f"{file} imports {module}, which pyproject.toml does not name")
    return found


def test_every_import_is_of_the_core_or_of_an_extra_in_its_room() -> None:
    assert [
        told
        for file in FILES
        for told in complaints(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("fedaigc/generation.py", "import sionna.phy"),
        ("fedaigc/generation.py", "def f():\n    from fastapi import FastAPI"),
        ("fedaigc/wireless/radio.py", "from sionna.phy.channel import AWGN"),
        ("fedaigc/wireless/radio.py", "class A:\n    if True:\n        import sionna"),
        ("fedaigc/study/results/plots.py", "from matplotlib import pyplot"),
        ("fedaigc/rng.py", "import hypothesis"),
    ],
)
def test_an_import_in_another_place_is_found(file: str, code: str) -> None:
    assert len(complaints(file, code)) == 1


def test_the_extras_of_the_code_are_those_of_the_project() -> None:
    everything = names_of(EXTRAS["all"])
    assert everything == {"fedaigc"}
    assert set(re.findall(r"\w+", EXTRAS["all"][0])) - {"fedaigc"} == set(PACKAGES) == set(ROOMS)
    for extra, packages in PACKAGES.items():
        wanted = names_of(EXTRAS[extra])
        assert wanted.isdisjoint(names_of(PROJECT["dependencies"]))
        found = {name.lower() for package in packages for name in INSTALLED.get(package, [package])}
        assert found == wanted, extra


def run_without(absent: Sequence[str], *commands: Sequence[object], cwd: Path) -> list[tuple[int, str]]:
    """Run commands one after another, and return their statuses and what they print."""
    program = [sys.executable, "-c", PROGRAM, json.dumps(absent)]
    done = subprocess.run(
        [*program, json.dumps([[str(word) for word in command] for command in commands])],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "LOADED []" in lines
    found: list[Any] = [json.loads(line.removeprefix("DONE ")) for line in lines if line.startswith("DONE ")]
    assert len(found) == len(commands)
    return [(status, told) for status, told in found]


CONFIG = """
homes = "homes"
output = "out"
num_clients = 1
backend = "in-process"
rounds = { count = 1 }
training = { local_steps = 1, personal_steps = 1, batch_size = 1 }
generation = { num_inference_steps = 2, num_shared_steps = 1 }
"""


@pytest.mark.slow
def test_without_any_extra_a_researcher_can_draw_and_simulate(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    told = run_without(
        ABSENT,
        ["--help"],
        ["device", "start", "--help"],
        ["generate", "an apple on a table", "--steps", 2, "--shared-steps", 1],
        ["scenes", "homes", "--clients", 1, "--images", 2],
        ["device", "add-prompt", "homes/00", "an apple on a table"],
        ["simulate", "run.toml"],
        cwd=tmp_path,
    )
    assert [status for status, _ in told] == [0] * len(told), told
    assert (tmp_path / "runs" / "generate" / "00.png").exists()
    assert "finished: 1 round," in told[-1][1]


LINK = ["--set", "generation.link.snr_db=12", "--set", "generation.delivery=tolerant"]


def test_a_command_that_needs_an_extra_names_it_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    commands: list[tuple[Extra, list[object]]] = [
        ("radio", ["simulate", "run.toml", *LINK]),
        ("radio", ["demo", "--small"]),
        ("peer", ["device", "pair", "homes/00", "kitchen", "--to", "127.0.0.1:7400"]),
        ("tensorboard", ["simulate", "run.toml", "--set", "rounds.tensorboard=true"]),
    ]
    check_refusals(ABSENT, commands, tmp_path)


def test_a_command_for_separate_machines_names_their_extra(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    commands: list[tuple[Extra, list[object]]] = [
        ("server", ["device", "start", "homes/00"]),
        ("server", ["device", "status", "homes/00"]),
        ("server", ["server", "start", "federation"]),
        ("server", ["server", "run", "federation", "run.toml"]),
        ("server", ["keys", "server", "federation", "--host", "localhost"]),
        ("server", ["keys", "device", "homes/00"]),
    ]
    check_refusals(sorted(OF_FLOWER), commands, tmp_path)


def check_refusals(
    absent: Sequence[str], commands: Sequence[tuple[Extra, list[object]]], folder: Path
) -> None:
    done = run_without(absent, *(command for _, command in commands), cwd=folder)
    for (extra, command), (status, told) in zip(commands, done, strict=True):
        assert status == 2, (command, told)
        (line,) = told.strip().splitlines()
        assert line.startswith("error: "), command
        assert line.endswith(f' not installed here: run `pip install "fedaigc[{extra}]"`'), (command, line)
    assert [path.name for path in folder.iterdir()] == ["run.toml"]
