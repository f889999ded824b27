"""Strategies of a notebook or a script, carried as a file to the worker processes of a simulation.

No other process can import a class of `__main__`. `carry` writes the class itself to a file, with the
fingerprint of its source, and a configuration names this file as it names any other strategy. Its options
travel in the configuration. Only the user's own processes read such a file: like a Python file, it is code,
and devices of a deployment refuse it.
"""

import ast
import dataclasses
import hashlib
import inspect
import textwrap
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from fedaigc.errors import UserError
from fedaigc.storage.atomic_file import write_file
from fedaigc.strategy.code_text import bare_text
from fedaigc.strategy.rule import Rule

SUFFIX = ".strategy"


def carry(strategy: type[Rule], folder: Path) -> Path:
    """Write a strategy's class to a file in `folder` and return its path.

    The name of the file is that of the class and its fingerprint, so the same class gives the same file.

    Raises:
        UserError: If the class refers to something that cannot be written, or has no source.
    """
    import dill

    code = source_code(strategy)
    path = folder / f"{strategy.__name__}-{code}{SUFFIX}"
    try:
        content = dill.dumps((code, strategy), recurse=True)
    except Exception as error:
        raise UserError(
            f"strategy {strategy.__name__} cannot be carried to another process: {error!r}; define what it refers "
            "to as functions and plain values, or put it into a Python file and give its path"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, content)
    return path


def carried_class(path: Path) -> type[Rule]:
    """Return the class in a file that `carry` wrote.

    Raises:
        UserError: If the file is missing or not readable.
    """
    return _read(path)[1]


def carried_code(path: Path) -> str:
    """Return the fingerprint of the class in a file that `carry` wrote; raises as `carried_class`."""
    return _read(path)[0]


def _read(path: Path) -> tuple[str, type[Rule]]:
    try:
        return _load(path.read_bytes())
    except OSError as error:
        raise UserError(f"strategy {str(path)!r}: {error.strerror}") from None
    except Exception as error:
        raise UserError(f"strategy {str(path)!r} cannot be read: {error!r}") from error


@cache
def _load(content: bytes) -> tuple[str, type[Rule]]:
    import dill

    code, strategy = dill.loads(content)
    return code, strategy


def source_code(strategy: type[Rule]) -> str:
    """Return the fingerprint of a class by its source: its functions, its fields, and all that they refer to.

    It covers the class, its bases outside of fedaigc, and the functions and plain values of the same module
    that their functions use. Docstrings, comments and annotations of functions do not count.

    Raises:
        UserError: If the source of a function is not available.
    """
    parts: dict[str, str] = {}
    for base in strategy.__mro__:
        if base is object or base.__module__.partition(".")[0] in ("abc", "typing"):
            continue
        if base.__module__.startswith("fedaigc."):
            parts[base.__qualname__] = base.__module__ + base.__qualname__
            continue
        for name, value in vars(base).items():
            function = inspect.unwrap(value.fget) if isinstance(value, property) and value.fget else value
            function = function.__func__ if isinstance(function, staticmethod | classmethod) else function
            if isinstance(function, FunctionType):
                if not name.startswith("__") or name in ("__init__", "__post_init__"):
                    _add_function(f"{base.__qualname__}.{name}", function, parts)
            elif not name.startswith("__") and not name.startswith("_abc_"):
                parts[f"{base.__qualname__}.{name}"] = repr(value)
    if dataclasses.is_dataclass(strategy):
        for field in dataclasses.fields(strategy):
            parts[f"field {field.name}"] = f"{field.type!r} = {field.default!r}"
    text = "\x1f".join(f"{name}\x1e{part}" for name, part in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _add_function(name: str, function: FunctionType, parts: dict[str, str]) -> None:
    """Add a function's source to `parts`, and what it uses of its own module."""
    if name in parts:
        return
    # a dataclass generates functions without a source; they follow from its fields
    if function.__code__.co_filename == "<string>":
        return
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise UserError(
            f"the source of {name} is not available: put the strategy into a Python file and give its path"
        ) from None
    parts[name] = bare_text(ast.parse(source))
    for used in sorted(_names(function)):
        value: Any = function.__globals__.get(used)
        if isinstance(value, FunctionType) and value.__module__ == function.__module__:
            _add_function(f"function {used}", value, parts)
        elif isinstance(value, bool | int | float | str | tuple):
            parts[f"global {used}"] = repr(value)


def _names(function: FunctionType) -> set[str]:
    """Return the global names that a function and the functions within it use."""
    found: set[str] = set()
    codes = [function.__code__]
    for code in codes:  # grows during the loop
        found |= set(code.co_names)
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return found
