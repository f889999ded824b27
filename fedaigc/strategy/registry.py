"""Strategies by name: the files of `strategies/`, and Flower's own."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping

from fedaigc.errors import UserError
from fedaigc.strategy.flower.rule import (
    FLOWER_STRATEGIES,
    flower_options,
    flower_rule,
)
from fedaigc.strategy.rule import WEIGHTINGS, Rule, Traits
from fedaigc.validation import nearest

Options = Mapping[str, float | int | bool | str]
WEIGHTING = "weighting"


def strategy_names() -> list[str]:
    """All strategies that a config may name, sorted."""
    return sorted([*_files(), *FLOWER_STRATEGIES])


def load_strategy(name: str, options: Options | None = None) -> Rule:
    """A fresh instance of the strategy `name` with its options; `weighting` is one of every averaging rule.

    Raises UserError, with the nearest name, for an unknown strategy or option, and for a value that the
    strategy refuses.
    """
    own = {option: value for option, value in (options or {}).items() if option != WEIGHTING}
    rule = _own_rule(name, own) if name not in FLOWER_STRATEGIES else flower_rule(name, own)
    if options and WEIGHTING in options:
        given = options[WEIGHTING]
        if rule.weighting is None:
            raise UserError(
                f"strategy {name!r} has no option 'weighting': it weighs clients by something else than "
                "their examples, or has no mean of them"
            )
        if given not in WEIGHTINGS:
            raise UserError(
                f"strategy {name!r}: weighting: expected {' or '.join(WEIGHTINGS)}, got {given!r}"
            )
        rule.weighting = WEIGHTINGS[WEIGHTINGS.index(given)]
    return rule


def _own_rule(name: str, options: Options) -> Rule:
    if name not in _files():
        raise UserError(
            f"strategy {name!r} is unknown{nearest(name, strategy_names())}: "
            f"expected one of {', '.join(strategy_names())}"
        )
    # by name, so that the library does not depend on the folder that users edit
    strategy = importlib.import_module(f"strategies.{name}").Strategy
    known = [field.name for field in dataclasses.fields(strategy) if field.init]
    known += [WEIGHTING] if strategy.weighting is not None else []
    for option in options:
        if option not in known:
            raise UserError(
                f"strategy {name!r} has no option {option!r}{nearest(option, known)}: "
                f"it has {', '.join(known) or 'none'}"
            )
    for field in dataclasses.fields(strategy):
        if field.name in options and field.default is not dataclasses.MISSING:
            value, wanted = options[field.name], type(field.default)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise UserError(f"strategy {name!r}: {field.name}: expected {wanted.__name__}, got {value!r}")
    try:
        rule: Rule = strategy(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"strategy {name!r}: {error}") from None
    return rule


@dataclasses.dataclass(frozen=True)
class StrategyInfo:
    """What a strategy says of itself. options: with their defaults."""

    name: str
    about: str
    traits: Traits
    options: Options
    equals: str


def describe(name: str) -> StrategyInfo:
    """The strategy `name` in a line; raises UserError as `load_strategy` does."""
    rule = load_strategy(name)
    if name in FLOWER_STRATEGIES:
        about, options = "Flower's own", flower_options(name)
    else:
        module = importlib.import_module(f"strategies.{name}")
        about = " ".join((module.__doc__ or "").partition("\n\n")[0].split())
        fields = dataclasses.fields(module.Strategy)
        options = {
            field.name: field.default
            for field in fields
            if field.init and field.default is not dataclasses.MISSING
        }
    if rule.weighting is not None:
        options = {**options, WEIGHTING: rule.weighting}
    return StrategyInfo(name, about, rule.traits, options, rule.equals)


def _files() -> list[str]:
    package = importlib.import_module("strategies")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))
