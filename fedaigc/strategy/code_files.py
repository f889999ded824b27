"""The code of Python files as a fingerprint, with that of the built-in strategies that they import."""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from fedaigc.strategy import builtin
from fedaigc.strategy.code_text import bare_text


def code_of_file(file: Path) -> str:
    """Return the fingerprint of a file and of all built-in strategies that it imports, directly or not."""
    return _code_of_file(file, file.stat().st_mtime_ns)


@cache
def _code_of_file(file: Path, modified_ns: int) -> str:
    # cached by modification time, since a strategy's file may change while the process runs
    return _fingerprint(_reached(file))


@cache
def code_of_modules(modules: tuple[str, ...]) -> str:
    """Return the fingerprint of modules, without what they import."""
    return _fingerprint([_parsed(module) for module in modules])


def _fingerprint(trees: list[ast.Module]) -> str:
    # ordered by content, since a module's name does not count
    digests = sorted(map(_digest, trees))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _digest(tree: ast.Module) -> str:
    return hashlib.sha256(bare_text(tree).encode()).hexdigest()


def _reached(file: Path) -> list[ast.Module]:
    """Return the syntax trees of a file and of all built-in strategies that it imports, directly or not."""
    trees = [ast.parse(file.read_text(encoding="utf-8"))]
    seen: set[str] = set()
    for tree in trees:  # grows during the loop
        for name in _imported_strategies(tree) - seen:
            seen.add(name)
            trees.append(_parsed(name))
    return trees


def _imported_strategies(tree: ast.Module) -> set[str]:
    prefix = f"{builtin.__name__}."
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith(prefix)}
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(prefix):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == builtin.__name__ else {str(node.module)}
    return found


def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
