"""The printed configuration: every key of a run, with its default or an example, and what it means."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from fedaigc.federation.config.config_file import EXAMPLES, config_text
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.settings import Model, Setting, model_of, toml

# what a link, or its own section, needs beside a key
WITH: dict[str, dict[str, Any]] = {
    "generation.clip_model": {"scorer": "clip"},
    "generation.link.send_above_db": {"rayleigh": True, "snr_db": 3.0},
}


def settings(model: Model, path: str = "") -> Iterator[tuple[str, Setting]]:
    for setting in model.settings:
        yield path + setting.name, setting
        if setting.model is not None:
            yield from settings(setting.model, f"{path}{setting.name}.")


ALL = dict(settings(model_of(FederationConfig)))


def test_a_run_has_keys_in_sections_and_sections_of_sections() -> None:
    assert {"homes", "rounds.count", "training.local_steps", "generation.link.snr_db"} <= {*ALL}
    assert set(vars(FederationConfig.model_validate({"homes": "a", "output": "b"}))) == {
        name for name in ALL if "." not in name
    }


@pytest.mark.parametrize("path", ALL)
def test_every_key_has_a_description_in_its_model(path: str) -> None:
    setting = ALL[path]
    assert setting.about or (setting.model is not None and setting.model.about)


def test_the_printed_file_is_the_default_configuration() -> None:
    given = parse_config(tomllib.loads(config_text()))
    assert given == FederationConfig(homes=given.homes, output=given.output)


def test_every_key_is_in_the_printed_file_under_its_section() -> None:
    """A key that has no value by default stands there as a comment."""
    found, section = set(), ""
    for line in config_text().splitlines():
        bare = re.sub(r"^(# )*", "", line)
        if header := re.fullmatch(r"\[([a-z_.]+)\]", bare):
            section = f"{header[1]}."
            found.add(header[1])
        elif assignment := re.match(r"(\w+) = ", bare):
            found.add(section + assignment[1])
    assert found == {*ALL}


@pytest.mark.parametrize("path", EXAMPLES)
def test_every_example_is_a_value_that_its_key_takes(path: str) -> None:
    *sections, name = path.split(".")
    values: dict[str, Any] = {**WITH.get(path, {}), name: EXAMPLES[path]}
    for section in reversed(sections):
        values = {section: values}
    found = parse_config({"homes": "homes", "output": "out", **values})
    for section in sections:
        found = getattr(found, section)
    kept = getattr(found, name)
    if path == "adapter.start_from":
        kept = str(kept)
    assert toml(
        list(kept) if isinstance(kept, tuple) else kept if path not in ("homes", "output") else str(kept)
    ) == (toml(EXAMPLES[path]))
    assert toml(EXAMPLES[path]) in config_text()


def test_without_the_comment_signs_of_a_section_it_can_be_set() -> None:
    """`[generation.link]` is not there by default; one sign before each line of it is."""
    text = config_text()
    start = text.index("# [generation.link]")
    link = re.sub(r"^# ", "", text[start:], flags=re.MULTILINE)
    given = tomllib.loads(text[:start] + link)["generation"]["link"]
    assert given["scheme"] == "adaptive"
    assert "snr_db" not in given
