"""One module has everything that is used of Flower beyond its public packages, and this release still has it."""

import ast
import importlib
from pathlib import Path

import flwr
import pytest

from fedaigc import flower_private
from fedaigc.flower_private import LOG_LINES, MODULES, RENAMED

ROOT = Path(__file__).parents[3]
PUBLIC = ("flwr.app", "flwr.serverapp", "flwr.clientapp")
OURS = [
    file
    for folder in ("fedaigc", "strategies")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file.name != "flower_private.py"
]
FLOWER = Path(str(flwr.__file__)).parent


def private_imports(file: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    inside = [name for name in found if name == "flwr" or name.startswith("flwr.")]
    return [name for name in inside if not f"{name}.".startswith(tuple(f"{each}." for each in PUBLIC))]


@pytest.mark.parametrize("file", OURS, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_else_touches_private_names_of_flower(file: Path) -> None:
    assert private_imports(file) == []


@pytest.mark.parametrize("name", [*RENAMED, *(name for names in MODULES.values() for name in names)])
def test_every_name_is_still_there(name: str) -> None:
    assert getattr(flower_private, name) is not None


def test_type_checkers_and_the_running_program_know_the_same_names() -> None:
    """The names occur twice: in imports that are never executed, and in a table."""
    tree = ast.parse(Path(flower_private.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        (alias.asname or alias.name).lstrip("_"): (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module not in PUBLIC
        for alias in node.names
    }
    assert imported == flower_private._WHERE


@pytest.mark.parametrize("line", LOG_LINES)
def test_flower_still_writes_this_line(line: str) -> None:
    """In Flower's source text, since only these lines report a device's connection."""
    texts = (file.read_text(encoding="utf-8") for file in FLOWER.rglob("*.py"))
    assert any(line in text for text in texts), f"no file of flwr {flwr.__name__} has {line!r}"


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("fedaigc.flower_private").nothing  # noqa: B018
