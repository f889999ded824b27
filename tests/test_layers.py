"""Imports run in one direction."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# a package may import those in the lines above its own, and within its own line only itself
LAYERS = (
    ("bounds", "counting", "errors", "flower_private", "rng"),
    ("extras", "settings", "validation"),
    ("storage",),
    ("assets",),
    ("data", "wireless"),
    ("metrics", "diffusion"),
    ("semantics",),
    ("planning", "strategy"),
    ("device",),
    ("collaboration",),
    ("federation",),
    ("study", "deployment"),
    ("generation", "score"),
    ("api",),
    ("demo",),
    ("cli",),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def imported_modules(file: Path) -> set[str]:
    """Return every module that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def package_of(module: str) -> str | None:
    """Return the part after `fedaigc.`, or None for other modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "fedaigc" and len(parts) > 1 else None


FILES = sorted((ROOT / "fedaigc").rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    own = file.relative_to(ROOT / "fedaigc").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in imported_modules(file):
        assert module.split(".")[0] not in ("strategies", "experiments"), f"{file} imports {module}"
        other = package_of(module)
        if other is not None and other != own and other in LEVEL:
            assert LEVEL[other] < LEVEL[own], f"{own} imports {module}: not downwards"


def test_every_package_has_its_layer() -> None:
    packages = {path.name.removesuffix(".py") for path in (ROOT / "fedaigc").iterdir()}
    assert packages - {"__init__", "__pycache__", "py.typed"} == set(LEVEL)


def test_strategies_know_only_the_rule_and_the_weights() -> None:
    for file in (ROOT / "strategies").glob("*.py"):
        ours = {module for module in imported_modules(file) if module.startswith("fedaigc")}
        allowed = ("fedaigc.strategy.rule", "fedaigc.diffusion.adapters.stages")
        assert all(module.startswith(allowed) for module in ours), f"{file.name} imports {ours}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


# `strategies/` is not among them: one paper a file, however many there are
TREES = ("fedaigc", "tests", "tools", "experiments")
ROOMS = sorted({file.parent for tree in TREES for file in (ROOT / tree).rglob("*.py")})
MOST_FILES = 14


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_rooms_stay_small(room: Path) -> None:
    """A reader finds a file by looking at about a dozen names."""
    files = [file.name for file in room.glob("*.py") if file.name != "__init__.py"]
    assert len(files) <= MOST_FILES, f"{room.relative_to(ROOT)} has {len(files)} files"
    assert (room / "__init__.py").exists(), f"{room.relative_to(ROOT)} does not say what it is"
