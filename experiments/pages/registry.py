"""The functions that marks name: those that return figures, check claims, and write tables."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fedaigc.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])
_figures: dict[str, Callable[..., Any]] = {}
_claims: dict[str, Callable[..., bool]] = {}
_tables: dict[str, Callable[..., str]] = {}


def figure(function: F) -> F:
    """Register a function of a mark "= NAME": it returns a number, an Estimate, or several of them."""
    return _added(_figures, function)


def claim(function: F) -> F:
    """Register a function of a mark "holds NAME": it returns true or false."""
    return _added(_claims, function)


def table(function: F) -> F:
    """Register a function of a mark "table: NAME": it returns Markdown, whole lines."""
    return _added(_tables, function)


def figure_of(words: Sequence[str]) -> Any:
    """Return the result of the function of a mark.

    Raises:
        UserError: If the name is unknown or the arguments are wrong.
    """
    return _called("figures", _figures, words)


def holds(words: Sequence[str]) -> bool:
    """Return the result of the function of a claim.

    Raises:
        UserError: As `figure_of`.
    """
    return bool(_called("claims", _claims, words))


def table_of(words: Sequence[str]) -> str:
    """Return the Markdown of the function of a table.

    Raises:
        UserError: As `figure_of`.
    """
    return str(_called("tables", _tables, words))


def usage() -> str:
    """Return all functions with their arguments and the first line of their docstrings, for people."""
    lines = []
    for kind, functions in (("figures", _figures), ("claims", _claims), ("tables", _tables)):
        lines.append(f"{kind}:")
        for name in sorted(functions):
            about = (inspect.getdoc(functions[name]) or "").partition("\n")[0]
            lines.append(f"  {_form(name, functions[name])}\n      {about}")
    return "\n".join(lines)


def _added(functions: dict[str, Callable[..., Any]], function: F) -> F:
    name = function.__name__.rstrip("_")
    if name in functions:
        raise ValueError(f"two functions for marks are called {name}")
    functions[name] = function
    return function


def _called(kind: str, functions: dict[str, Callable[..., Any]], words: Sequence[str]) -> Any:
    name, *given = words
    if name not in functions:
        raise UserError(f"{name!r} is not one of the {kind}: expected one of {', '.join(sorted(functions))}")
    function = functions[name]
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*given)
        for key, value in bound.arguments.items():
            kind_of = signature.parameters[key].annotation
            if signature.parameters[key].kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[key] = tuple(kind_of(each) for each in value)
            else:
                bound.arguments[key] = kind_of(value)
    except (TypeError, ValueError):
        raise UserError(f"{' '.join(words)}: expected {_form(name, function)}") from None
    return function(*bound.args)


def _form(name: str, function: Callable[..., Any]) -> str:
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            parts.append(f"{parameter.name}...")
        elif parameter.default is inspect.Parameter.empty:
            parts.append(parameter.name)
        else:
            parts.append(f"[{parameter.name}={parameter.default}]")
    return " ".join([name, *(part.upper() for part in parts)])
