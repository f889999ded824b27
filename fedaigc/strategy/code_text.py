"""The text of code without what does not change what it does.

Module names, imports, annotations of functions, docstrings and comments do not count.
"""

import ast


def bare_text(tree: ast.Module) -> str:
    """Return a syntax tree as text, without what does not count; the tree itself is changed."""
    return _text(_Bare().visit(tree))


def _text(node: object) -> str:
    """Return a syntax tree as text that is the same in every Python version; empty fields are left out.

    `ast.dump` gives other text under Python 3.11, 3.12 and 3.13: new fields, and empty ones in or out.
    """
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    return repr(node)


class _Bare(ast.NodeTransformer):
    """Removes imports, docstrings and the annotations of functions.

    Annotations in a class body remain: in a dataclass they are fields.
    """

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | None:
        # an `if TYPE_CHECKING:` block holds only imports
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
