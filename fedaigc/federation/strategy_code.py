"""The fingerprint of a strategy's code: server and devices must run the same."""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from fedaigc.federation.flower_rule import FLOWER_STRATEGIES


@cache
def strategy_code(strategy: str) -> str:
    """Of a rule in `strategies/`: its file and those that it imports there, without comments and docstrings.

    Of Flower's rules: the files that adapt them. ModuleNotFoundError for a name that is no strategy.
    """
    if strategy in FLOWER_STRATEGIES:
        names = ("flower_rule", "flower_privacy", "secret_noise")
        return _fingerprint({f"fedaigc.federation.{name}" for name in names})
    return _fingerprint(_reached(f"strategies.{strategy}"))


def _fingerprint(modules: set[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(module.encode() + b"\0" + ast.dump(_without_docstrings(module)).encode())
    return digest.hexdigest()[:16]


def _reached(module: str) -> set[str]:
    """The module and all of `strategies` that it imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or importlib.util.find_spec(name) is None:
            continue
        found.add(name)
        for node in ast.walk(_parsed(name)):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names if alias.name.startswith("strategies.")]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("strategies."):
                waiting.append(node.module or "")
    return found


def _without_docstrings(module: str) -> ast.Module:
    tree = _parsed(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return tree


def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
