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

from fedaigc.strategy import builtin
from fedaigc.strategy.flower.rule import FLOWER_STRATEGIES
from fedaigc.strategy.sources import strategy_module

# what computes the rules that are Flower's own classes
FLOWER_MODULES = (
    "fedaigc.strategy.flower.iterated_krum",
    "fedaigc.strategy.flower.no_nodes",
    "fedaigc.strategy.flower.privacy",
    "fedaigc.strategy.flower.rule",
    "fedaigc.strategy.secret_noise",
)


def strategy_code(strategy: str) -> str:
    """Of a rule's module and the built-in strategies that it imports; of Flower's rules: what adapts them.

    Raises UserError for a name that is no strategy.
    """
    if strategy in FLOWER_STRATEGIES:
        return _flower_code()
    file = Path(str(strategy_module(strategy).__file__))
    return _code_of_file(file, file.stat().st_mtime_ns)


@cache
def _flower_code() -> str:
    return _fingerprint([_parsed(module) for module in FLOWER_MODULES])


@cache
def _code_of_file(file: Path, modified_ns: int) -> str:
    # whoever writes a strategy changes its file while the process lives
    return _fingerprint(_reached(file))


def _fingerprint(trees: list[ast.Module]) -> str:
    # by content: a module's name is no part of what it does
    digests = sorted(map(_digest, trees))
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


def _reached(file: Path) -> list[ast.Module]:
    """The syntax of a file and of all built-in strategies that it imports, directly or not."""
    trees = [ast.parse(file.read_text(encoding="utf-8"))]
    seen: set[str] = set()
    for tree in trees:  # grows as it is read
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
