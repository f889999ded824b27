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
from functools import cache, cached_property
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, GenericAlias, ModuleType, UnionType
from typing import Any

from fedaigc.errors import UserError
from fedaigc.storage.atomic_file import write_file
from fedaigc.strategy import builtin
from fedaigc.strategy.code_files import code_of_file
from fedaigc.strategy.code_text import bare_text
from fedaigc.strategy.rule import Rule, Traits

SUFFIX = ".strategy"


def carry(strategy: type[Rule], folder: Path) -> Path:
    """Write a strategy's class to a file in `folder` and return its path.

    The name of the file is that of the class and its fingerprint, so the same class gives the same file.

    Raises:
        UserError: If the class refers to something that cannot be written, or has no source.
    """
    code = source_code(strategy)
    path = folder / f"{strategy.__name__}-{code}{SUFFIX}"
    try:
        content = _pickled((code, strategy))
    except Exception as error:
        raise UserError(
            f"strategy {strategy.__name__} cannot be carried to another process: {error!r}; define what it refers "
            "to as functions and plain values, or put it into a Python file and give its path"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, content)
    return path


def _pickled(value: Any) -> bytes:
    # imported here: processes that load no such file need none of it
    import dill

    def save_module(pickler: Any, module: ModuleType) -> None:
        pickler.save_reduce(import_module, (module.__name__,), obj=module)

    file = BytesIO()
    pickler = dill.Pickler(file, recurse=True)
    # by its name: dill writes the content of modules outside of site-packages, such as an editable install
    pickler.dispatch = type(pickler.dispatch)(pickler.dispatch)
    pickler.dispatch[ModuleType] = save_module
    pickler.dump(value)
    return file.getvalue()


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
        return _load(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"strategy {str(path)!r}: {error.strerror}") from None
    except Exception as error:
        raise UserError(f"strategy {str(path)!r} cannot be read: {error!r}") from error


@cache
def _load(path: Path, modified_ns: int) -> tuple[str, type[Rule]]:
    import dill

    # cached by modification time: a client half is loaded for every client and round
    code, strategy = dill.loads(path.read_bytes())
    return code, strategy


def source_code(strategy: type[Rule]) -> str:
    """Return the fingerprint of a class by its source: all that decides what it does, as far as it is the user's.

    It covers the class and its bases outside of fedaigc, the code of built-in strategies among its bases, and what
    their functions refer to: default values, closures, and the functions, classes and plain values of the same
    module. Of other modules the name counts. Docstrings, comments and annotations of functions do not count.

    Raises:
        UserError: If the class refers to something whose content cannot be told, or has no source.
    """
    parts = _Parts(strategy.__module__)
    parts.add_class(strategy)
    text = "\x1f".join(f"{name}\x1e{part}" for name, part in sorted(parts.found.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# what Python and dataclasses put into a class by themselves
_GENERATED = frozenset(
    (
        "__module__",
        "__qualname__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__annotations__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__abstractmethods__",
        "_abc_impl",
        "__firstlineno__",
        "__static_attributes__",
        "__orig_bases__",
        "__parameters__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
    )
)
_DATACLASS_METHODS = frozenset(
    ("__init__", "__repr__", "__eq__", "__hash__", "__replace__", "__lt__", "__le__", "__gt__", "__ge__")
)
_PLAIN = (bool, int, float, str, bytes, type(None))


class _Parts:
    """The source and the values that a class depends on, by name."""

    def __init__(self, module: str) -> None:
        self.found: dict[str, str] = {}
        self._module = module

    def add_class(self, kind: type) -> None:
        if f"class {kind.__qualname__}" in self.found:
            return
        self.found[f"class {kind.__qualname__}"] = ", ".join(base.__qualname__ for base in kind.__bases__)
        for base in kind.__mro__[1:]:
            if base.__module__.startswith(f"{builtin.__name__}."):
                self.found[f"built-in {base.__qualname__}"] = code_of_file(Path(inspect.getfile(base)))
            elif base.__module__ == self._module:
                self.add_class(base)
        own = f"class {kind.__qualname__}."
        for name, value in vars(kind).items():
            code = getattr(inspect.unwrap(value) if callable(value) else None, "__code__", None)
            generated = code is not None and code.co_filename == "<string>"
            if name not in _GENERATED and not (generated and name in _DATACLASS_METHODS):
                self._add(own + name, value)
        for field in vars(kind).get("__dataclass_fields__", {}).values():
            self.found[f"{own}{field.name}: type"] = str(field.type)
            for what in ("default", "default_factory"):
                value = getattr(field, what)
                if value is not dataclasses.MISSING:
                    self._add(f"{own}{field.name}: {what}", value)

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, property):
            for part in (value.fget, value.fset, value.fdel):
                if part is not None:
                    self._add(f"{name} {part.__name__}", part)
        elif isinstance(value, staticmethod | classmethod):
            self._add(f"{type(value).__name__} {name}", value.__func__)
        elif isinstance(value, cached_property):
            self._add(name, value.func)
        elif isinstance(value, FunctionType) and value.__module__ == self._module:
            self._add_function(name, value)
        elif isinstance(value, type) and value.__module__ == self._module:
            self.found[name] = value.__qualname__
            self.add_class(value)
        elif isinstance(value, ModuleType):
            self.found[name] = value.__name__
        elif isinstance(value, type | FunctionType | BuiltinFunctionType):
            self.found[name] = f"{value.__module__}.{value.__qualname__}"
        elif isinstance(value, Traits):
            self.found[name] = repr(value)
        else:
            self.found[name] = self._plain(name, value)

    def _plain(self, name: str, value: Any) -> str:
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, list | tuple):
            return f"[{', '.join(self._plain(name, item) for item in value)}]"
        if isinstance(value, set | frozenset):
            return f"set({', '.join(sorted(self._plain(name, item) for item in value))})"
        if isinstance(value, dict):
            pairs = (f"{self._plain(name, key)}: {self._plain(name, item)}" for key, item in value.items())
            return f"{{{', '.join(sorted(pairs))}}}"
        if getattr(type(value), "__module__", "") == "typing" or isinstance(value, GenericAlias | UnionType):
            return repr(value)
        raise UserError(
            f"{name} is a {type(value).__name__}, whose content no fingerprint covers: make it an option, or put the "
            "strategy into a Python file and give its path"
        )

    def _add_function(self, name: str, function: FunctionType) -> None:
        if name in self.found:
            return
        code = function.__code__
        try:
            source = textwrap.dedent(inspect.getsource(code))
            self.found[name] = bare_text(ast.parse(source))
        except (OSError, TypeError, SyntaxError):
            raise UserError(
                f"the source of {name} is not available: put the strategy into a Python file and give its path"
            ) from None
        self._add(f"{name}: defaults", function.__defaults__)
        self._add(f"{name}: keyword defaults", function.__kwdefaults__)
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            # super() keeps the class itself
            if variable != "__class__":
                self._add(f"{name}: {variable}", cell.cell_contents)
        from dill.detect import nestedglobals

        for used in sorted(set(nestedglobals(function))):
            if used in function.__globals__:
                self._add(f"global {used}", function.__globals__[used])
