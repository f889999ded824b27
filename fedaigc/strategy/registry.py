"""Strategies by name, with their options: a new rule for a run, and the description of a strategy."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedaigc.errors import UserError
from fedaigc.strategy.carried import SUFFIX
from fedaigc.strategy.flower.rule import FLOWER_STRATEGIES, flower_options, flower_rule
from fedaigc.strategy.rule import WEIGHTINGS, Rule, Traits
from fedaigc.strategy.sources import strategy_class, strategy_module
from fedaigc.validation import nearest

Options = Mapping[str, float | int | bool | str]
WEIGHTING = "weighting"


def load_strategy(name: str, options: Options | None = None) -> Rule:
    """Return a new instance of a strategy.

    Args:
        name: Name of the strategy.
        options: Options of the strategy. Every averaging rule also has `weighting`.

    Raises:
        UserError: If the strategy or an option is unknown (with the nearest name), or the strategy refuses a
            value.
    """
    own = {option: value for option, value in (options or {}).items() if option != WEIGHTING}
    rule = _own_rule(name, own) if name not in FLOWER_STRATEGIES else flower_rule(name, own)
    if options and WEIGHTING in options:
        given = options[WEIGHTING]
        if rule.weighting is None:
            raise UserError(
                f"strategy {name!r} has no option 'weighting': it does not weigh clients by "
                "their number of examples, or computes no mean"
            )
        if given not in WEIGHTINGS:
            raise UserError(
                f"strategy {name!r}: weighting: expected {' or '.join(WEIGHTINGS)}, got {given!r}"
            )
        rule.weighting = WEIGHTINGS[WEIGHTINGS.index(given)]
    return rule


def _own_rule(name: str, options: Options) -> Rule:
    strategy: Any = strategy_class(name)
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
    """The description of a strategy.

    Attributes:
        name: Name of the strategy.
        about: First paragraph of its module's docstring.
        traits: Declared traits.
        options: Options with their defaults.
        equals: See `Rule`.
    """

    name: str
    about: str
    traits: Traits
    options: Options
    equals: str


def describe(name: str) -> StrategyInfo:
    """Return the description of a strategy.

    Raises:
        UserError: As `load_strategy`.
    """
    rule = load_strategy(name)
    if name in FLOWER_STRATEGIES:
        about, options = "Flower's own", flower_options(name)
    else:
        strategy: Any = strategy_class(name)
        text = strategy.__doc__ if name.endswith(SUFFIX) else strategy_module(name).__doc__
        about = " ".join((text or "").partition("\n\n")[0].split())
        fields = dataclasses.fields(strategy)
        options = {
            field.name: field.default
            for field in fields
            if field.init and field.default is not dataclasses.MISSING
        }
    if rule.weighting is not None:
        options = {**options, WEIGHTING: rule.weighting}
    return StrategyInfo(name, about, rule.traits, options, rule.equals)
