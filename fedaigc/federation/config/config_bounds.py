"""The bounds of a configuration that another machine sent: every number, string and list of it.

A simulation's configuration is its owner's own and not looked at; a device looks at a server's before it does
anything, and a server at what it is about to send to devices.
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
    """The configuration that a server sent with a message, as JSON.

    Raises UserError for one that is too long, wrong, or beyond a bound; the text of it is bounded too.
    """
    if len(text) > MAX_CONFIG_CHARACTERS:
        raise UserError(f"a configuration of {len(text)} characters: at most {MAX_CONFIG_CHARACTERS}")
    config = config_from_run({RUN_CONFIG_KEY: text})
    check_config(config)
    return config


def check_config(config: FederationConfig) -> None:
    """Raises UserError that names key, value and bound, for the first value beyond the table of bounds."""
    for key, value in _leaves("", config.model_dump(mode="json")):
        _check(key, value)
    if is_file(config.rounds.strategy):
        raise UserError(
            f"rounds.strategy is the file {config.rounds.strategy!a:.80}: a device runs strategies that are "
            "installed on it; make yours a package with an entry point of the group 'fedaigc.strategies'"
        )
    pixels = config.model.height * config.model.width
    if pixels > MAX_IMAGE_PIXELS:
        raise UserError(f"model.height x model.width is {pixels}: at most {MAX_IMAGE_PIXELS} pixels")


def bound_of(key: str, value: float) -> float:
    """The largest magnitude of a number under this key; `value` tells whole numbers from others."""
    if not key.startswith(_OPTIONS):
        return CONFIG.get(key, MAX_OTHER_NUMBER)
    other = MAX_OTHER_NUMBER if isinstance(value, int) else MAX_OPTION
    return OPTIONS.get(key.removeprefix(_OPTIONS), other)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value with the dotted path of its key; of lists and of tables with free keys, also how many."""
    if isinstance(value, Mapping):
        if len(value) > (MAX_OPTIONS if f"{key}." == _OPTIONS else MAX_CLIENTS):
            raise UserError(f"{key or 'the configuration'} has {len(value)} entries, which is too many")
        for name, inner in value.items():
            if len(name) > MAX_OPTION_CHARACTERS:
                raise UserError(f"{key or 'the configuration'} has a key of {len(name)} characters")
            # the nodes of a binding are no keys of ours
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
        # not `abs(value) > bound`, which is false of what is no number
        if not abs(value) <= bound:
            raise UserError(f"{key!a:.80} is {value!r:.40}: at most {bound:g}")
