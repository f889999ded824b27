"""The fingerprint of a strategy's code: server and devices must run the same, and records name it.

It is made of what the code does, not of where it lies or how it is described: module names, imports,
annotations of functions, docstrings and comments do not count. A strategy may move to another package, or its
parameters be described by other types, and stay the same strategy.
"""

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from fedaigc.strategy.flower.rule import FLOWER_STRATEGIES

# what computes the rules that are Flower's own classes
FLOWER_MODULES = (
    "fedaigc.strategy.flower.iterated_krum",
    "fedaigc.strategy.flower.no_nodes",
    "fedaigc.strategy.flower.privacy",
    "fedaigc.strategy.flower.rule",
    "fedaigc.strategy.secret_noise",
)


@cache
def strategy_code(strategy: str) -> str:
    """Of a rule in `strategies/`: its file and those that it imports there.

    Of Flower's rules: the files that adapt them. ModuleNotFoundError for a name that is no strategy.
    """
    if strategy in FLOWER_STRATEGIES:
        return _fingerprint(set(FLOWER_MODULES))
    return _fingerprint(_reached(f"strategies.{strategy}"))


def _fingerprint(modules: set[str]) -> str:
    # by content: a module's name is no part of what it does
    digests = sorted(_digest(_parsed(module)) for module in modules)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _digest(tree: ast.Module) -> str:
    return hashlib.sha256(_text(_Bare().visit(tree)).encode()).hexdigest()


def _text(node: object) -> str:
    """A syntax tree in words that every Python has for it: fields that are empty are left out.

    `ast.dump` writes other text under Python 3.11, 3.12 and 3.13: new fields, and empty ones in or out.
    """
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    return repr(node)


class _Bare(ast.NodeTransformer):
    """Takes imports, docstrings and the annotations of functions away.

    Annotations in a class body stay: in a dataclass they are fields.
    """

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | None:
        # `if TYPE_CHECKING:` holds imports alone
        return self.generic_visit(node) if any(not _imports(each) for each in node.body) else None

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def _without_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)


def _imports(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


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


def _parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
