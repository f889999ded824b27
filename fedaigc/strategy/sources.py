"""Where strategies come from: built-in modules, installed packages, any Python file, and notebooks.

`strategy = "fedit"` is the module `fedaigc.strategy.builtin.fedit`, or else the entry point `fedit` in the
group `fedaigc.strategies` of an installed package, which names a module or a class. `strategy = "my/rule.py"`
is that file, and `"my/rules.py:Mine"` one class of it. A module without a named class has a class `Strategy`, or
exactly one class that extends `Rule`. A class of a notebook
is carried in a file of its own (`carried`).
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from fedaigc.errors import UserError
from fedaigc.strategy import builtin
from fedaigc.strategy.carried import SUFFIX, carried_class
from fedaigc.strategy.flower.rule import FLOWER_STRATEGIES
from fedaigc.strategy.rule import Rule, Traits
from fedaigc.validation import nearest

ENTRY_POINTS = "fedaigc.strategies"


def strategy_names() -> list[str]:
    """Return all strategies that a configuration may name, sorted.

    These are the built-in ones, Flower's, and those of installed packages.

    Example:
        >>> import fedaigc as fa
        >>> {"fedit", "fedex_lora", "local_only"} <= set(fa.strategy_names())
        True
    """
    return sorted({*_builtin(), *FLOWER_STRATEGIES, *_installed()})


def is_file(name: str) -> bool:
    """Return whether a strategy is named by its file rather than by a name of `strategy_names`."""
    return name.endswith((".py", SUFFIX)) or ".py:" in name


def strategy_module(name: str) -> ModuleType:
    """Return the module that holds a strategy other than Flower's.

    Raises:
        UserError: If the strategy is unknown (with the nearest name), its file is missing, or its module
            cannot be imported.
    """
    if is_file(name):
        return _module_of_file(Path(_file_and_class(name)[0]))
    if name in _builtin():
        return importlib.import_module(f"{builtin.__name__}.{name}")
    found = _installed().get(name)
    if found is None:
        raise UserError(
            f"strategy {name!r} is unknown{nearest(name, strategy_names())}: expected one of "
            f"{', '.join(strategy_names())}, or the path of a Python file"
        )
    try:
        return importlib.import_module(found.module)
    except Exception as error:
        raise UserError(
            f"strategy {name!r} of the package {_package(found)} cannot be imported: {error!r}"
        ) from error


def strategy_class(name: str) -> type[Rule]:
    """Return the class of a strategy other than Flower's: a dataclass whose fields are its options.

    Raises:
        UserError: As `strategy_module`, or if the module has no such class.
    """
    if name.endswith(SUFFIX):
        return checked_class(carried_class(Path(name)), name)
    module = strategy_module(name)
    entry = None if is_file(name) or name in _builtin() else _installed()[name]
    named = entry.attr if entry is not None else _file_and_class(name)[1]
    if named:
        found = getattr(module, named, None)
    else:
        own = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, Rule) and value.__module__ == module.__name__
        ]
        found = getattr(module, "Strategy", own[0] if len(own) == 1 else None)
    if not (inspect.isclass(found) and issubclass(found, Rule)):
        raise UserError(
            f"strategy {name!r}: {module.__file__} has no class `Strategy`, and not exactly one that extends Rule"
        )
    return checked_class(found, name)


def _file_and_class(name: str) -> tuple[str, str]:
    """Split `rules.py:Mine` into the file and the class; the class is empty where none is named."""
    file, separator, kind = name.rpartition(".py:")
    return (f"{file}.py", kind) if separator else (name, "")


def checked_class(found: type[Rule], name: str) -> type[Rule]:
    """Return the class of a strategy as a dataclass, whose fields are its options.

    Raises:
        UserError: If it declares no traits, or is abstract.
    """
    if "__dataclass_fields__" not in vars(found):
        found = dataclasses.dataclass(found)
    if not isinstance(getattr(found, "traits", None), Traits):
        raise UserError(f"strategy {name!r} declares no traits: add `traits = Traits(...)` to its class")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"strategy {name!r} lacks {missing}: extend AveragingRule, or write them")
    return found


def _builtin() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(builtin.__path__))


def _installed() -> dict[str, EntryPoint]:
    """Return the strategies of installed packages by name.

    Raises UserError if two packages have one of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise UserError(
                f"two packages have a strategy {entry.name!r}: {_package(other)} and {_package(entry)}; "
                "uninstall one of them"
            )
        found[entry.name] = entry
    return found


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _module_of_file(file: Path) -> ModuleType:
    """Return the module of a file, read again after a change; raise UserError if it cannot be imported."""
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"strategy {str(file)!r}: {error.strerror}") from None
    name = f"fedaigc_strategy_{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file.absolute())
    if spec is None or spec.loader is None:
        raise UserError(f"strategy {str(file)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses look up their module by name
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"strategy {str(file)!r} cannot be imported: {error!r}") from error
    return module
