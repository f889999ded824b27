"""Bounds of a configuration that another machine sent: every number, string and list in it.

The configuration of a simulation belongs to its owner and is not checked. A device checks the configuration
of a server before it does anything else, and a server checks what it is about to send to devices.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fedaigc.bounds import (
    CONFIG,
    MAX_CLIENTS,
    MAX_CONFIG_CHARACTERS,
    MAX_IMAGE_PIXELS,
    MAX_OPTION,
    MAX_OPTION_CHARACTERS,
    MAX_OPTIONS,
    MAX_OTHER_NUMBER,
    MAX_STRING,
    OPTIONS,
)
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig, config_from_run
from fedaigc.strategy.sources import is_file

_OPTIONS = "rounds.options."


def config_from_server(text: str) -> FederationConfig:
    """Parse the configuration that a server sent with a message.

    Args:
        text: The configuration as JSON.

    Raises:
        UserError: If the configuration is too long, invalid or beyond a bound. The error's text is bounded
            too.
    """
    if len(text) > MAX_CONFIG_CHARACTERS:
        raise UserError(
            f"the configuration has {len(text)} characters: expected at most {MAX_CONFIG_CHARACTERS}"
        )
    config = config_from_run({RUN_CONFIG_KEY: text})
    check_config(config)
    return config


def check_config(config: FederationConfig) -> None:
    """Check a configuration against the table of bounds.

    Raises:
        UserError: For the first value beyond its bound; it names key, value and bound. Also for a strategy
            given as a file, for layers given as a regular expression, and for too many pixels.
    """
    for key, value in _leaves("", config.model_dump(mode="json")):
        _check(key, value)
    if is_file(config.rounds.strategy):
        raise UserError(
            f"rounds.strategy is the file {config.rounds.strategy!a:.80}: a device runs only strategies that are "
            "installed on it; package yours with an entry point in the group 'fedaigc.strategies'"
        )
    if isinstance(config.adapter.target_modules, str):
        # matching a hostile expression can take forever
        raise UserError("adapter.target_modules is a regular expression: a device takes names of layers only")
    pixels = config.model.height * config.model.width
    if pixels > MAX_IMAGE_PIXELS:
        raise UserError(f"model.height x model.width is {pixels}: at most {MAX_IMAGE_PIXELS} pixels")


def bound_of(key: str, value: float) -> float:
    """Return the largest magnitude that a number under a key may have.

    Args:
        key: Dotted key of the configuration.
        value: The number; an option of a strategy without a bound of its own has another bound for integers
            than for other numbers.
    """
    if not key.startswith(_OPTIONS):
        return CONFIG.get(key, MAX_OTHER_NUMBER)
    other = MAX_OTHER_NUMBER if isinstance(value, int) else MAX_OPTION
    return OPTIONS.get(key.removeprefix(_OPTIONS), other)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted key; check the sizes of lists and tables and the lengths of keys."""
    if isinstance(value, Mapping):
        if len(value) > (MAX_OPTIONS if f"{key}." == _OPTIONS else MAX_CLIENTS):
            raise UserError(f"{key or 'the configuration'} has too many entries: {len(value)}")
        for name, inner in value.items():
            if len(name) > MAX_OPTION_CHARACTERS:
                raise UserError(f"{key or 'the configuration'} has a key of {len(name)} characters")
            # node ids are not keys of the configuration
            yield from _leaves("bindings" if key == "bindings" else f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list | tuple):
        if len(value) > MAX_CLIENTS:
            raise UserError(f"{key} has {len(value)} values: at most {MAX_CLIENTS}")
        for inner in value:
            yield from _leaves(key, inner)
    else:
        yield key, value


def _check(key: str, value: Any) -> None:
    if isinstance(value, str):
        limit = MAX_OPTION_CHARACTERS if key.startswith(_OPTIONS) else MAX_STRING
        if len(value) > limit:
            raise UserError(f"{key!a:.80} has {len(value)} characters: at most {limit}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        bound = bound_of(key, value)
        # not `abs(value) > bound`, which is false for NaN
        if not abs(value) <= bound:
            raise UserError(f"{key!a:.80} is {value!r:.40}: at most {bound:g}")
