"""Checks the types and shapes in signatures while tests run. An int is accepted for a float, as in PEP 484.

jaxtyping binds the arguments of every call and checks them twice, so that the axes of all shapes agree. Most functions
have no shapes: beartype alone checks those, for a fraction of the time.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError

checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))

_whole: Any = jaxtyping.jaxtyped


def jaxtyped(what: Any = None, *, typechecker: Any) -> Any:
    """Do what jaxtyping's own decorator does, with less work for functions without shapes."""
    if what is None:
        return partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(what):
        init = vars(what).get("__init__")
        if dataclasses.is_dataclass(what) and init is not None and not hasattr(init, "__wrapped__"):
            what.__init__ = jaxtyped(init, typechecker=typechecker)  # type: ignore[method-assign]
        return what
    if not inspect.isfunction(what):
        return _whole(what, typechecker=typechecker)
    hints = _hints(what)
    if any(map(_has_shape, hints.values())):
        return _whole(what, typechecker=typechecker)
    return _with_hints(what, hints, typechecker)


def _with_hints(function: Callable[..., Any], hints: dict[str, Any], typechecker: Any) -> Any:
    """Return the function checked by `hints`, with the annotations that it has."""
    own = function.__annotations__
    function.__annotations__ = hints
    try:
        found = typechecker(function)
    finally:
        function.__annotations__ = own
    found.__annotations__ = own
    return found


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's annotations without strings. Names that are imported for mypy alone are not checked."""
    own, names = function.__annotations__, function.__globals__
    try:
        return _resolved(own, names)
    except Exception:
        return {name: _resolved_or_any(hint, names) for name, hint in own.items()}


def _resolved(annotations: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    def holder() -> None: ...

    holder.__annotations__ = dict(annotations)
    return typing.get_type_hints(holder, names, include_extras=True)


def _resolved_or_any(hint: Any, names: dict[str, Any]) -> Any:
    # as jaxtyping does
    try:
        return _resolved({"value": hint}, names)["value"]
    except Exception:
        return Any


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, list | tuple):
        return any(map(_has_shape, hint))
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(map(_has_shape, typing.get_args(hint)))


# the decorator that jaxtyping's import hook looks up for each function
setattr(jaxtyping, "jaxtyped", jaxtyped)  # noqa: B010
