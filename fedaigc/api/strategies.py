"""Any strategy as a name and options that a configuration can hold: a name, a file, a class or an instance."""

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

from fedaigc.errors import UserError
from fedaigc.strategy import builtin
from fedaigc.strategy.carried import carry
from fedaigc.strategy.registry import WEIGHTING, load_strategy
from fedaigc.strategy.rule import Rule
from fedaigc.strategy.sources import checked_class

Strategy = str | Path | Rule | type[Rule]


def named_strategy(strategy: Strategy, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a strategy.

    Args:
        strategy: A name of `fedaigc strategies`, the path of a Python file, or a class or an instance of one,
            wherever it was defined.
        folder: Folder for the file of a class of a notebook or a script, which no other process can import.

    Raises:
        UserError: If the strategy is unknown, or an option of the instance is no number, text or truth value.
    """
    if isinstance(strategy, str | Path):
        load_strategy(str(strategy))
        return str(strategy), {}
    if inspect.isclass(strategy):
        return _name_of(strategy, folder), {}
    kind = checked_class(type(strategy), type(strategy).__name__)
    options = _options(strategy)
    if strategy.weighting != kind.weighting:
        options[WEIGHTING] = strategy.weighting
    return _name_of(kind, folder), options


def _name_of(kind: type[Rule], folder: Path) -> str:
    checked_class(kind, kind.__name__)
    package, _, name = kind.__module__.rpartition(".")
    if package == builtin.__name__:
        return name
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    # a script is not imported again: that would run it again
    if file and kind.__module__ != "__main__" and getattr(module, kind.__qualname__, None) is kind:
        return f"{Path(file).absolute()}:{kind.__qualname__}"
    return str(carry(kind, folder).absolute())


def _options(strategy: Rule) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(strategy):  # type: ignore[arg-type]
        if not field.init:
            continue
        value = getattr(strategy, field.name)
        if not isinstance(value, bool | int | float | str):
            raise UserError(
                f"{type(strategy).__name__}.{field.name} is {value!r:.60}: an option is a number, a text or a "
                "truth value"
            )
        if value != field.default:
            found[field.name] = value
    return found
