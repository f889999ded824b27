"""The printed file of a study: every key with its default or an example, and what it means."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedaigc.settings import Model, model_of
from fedaigc.study.design.config import StudyConfig, read_study
from fedaigc.study.design.config_text import STUDY_EXAMPLES, study_text
from fedaigc.validation import validated

REFUSED = {f"rounds.{name}" for name in ("strategy", "options", "validation_fraction", "early_stopping")}
# what a key needs beside itself
WITH: dict[str, dict[str, Any]] = {
    "adapter.start_digest": {"start_from": "lora/shared"},
    "clients.data.label_column": {"source": "my_pictures"},
    "evaluation.features": {"gallery": 16},
    "tuning.rounds": {"seeds": [1000]},
}
ROWS = {"reference": "fedit", "strategies": [{"name": "fedit"}]}


def keys(model: Model, path: str = "") -> set[str]:
    found = set()
    for setting in model.settings:
        found.add(path + setting.name)
        if setting.model is not None:
            found |= keys(setting.model, f"{path}{setting.name}.")
    return {key for key in found if not any(key == name or key.startswith(f"{name}.") for name in REFUSED)}


def test_the_printed_file_is_the_default_study(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(study_text())
    study = read_study(path)
    assert study == validated(StudyConfig, {"output": tmp_path / "out", **ROWS})


def test_every_key_that_a_study_takes_is_in_the_printed_file_under_its_section() -> None:
    found, section = set(), ""
    for line in study_text().splitlines():
        bare = re.sub(r"^(# )*", "", line)
        if header := re.fullmatch(r"\[+([a-z_.]+)\]+", bare):
            # the name of a partition is no key
            name = header[1].replace("clients.partitions.style", "clients.partitions")
            section = f"{name}."
            found.add(name)
        elif assignment := re.match(r"(\w+) = ", bare):
            found.add(section + assignment[1])
    assert found == keys(model_of(StudyConfig))


@pytest.mark.parametrize(
    "path", [key for key in STUDY_EXAMPLES if key not in ("clients.partitions", "output")]
)
def test_every_example_is_a_value_that_its_key_takes(path: str) -> None:
    *sections, name = path.split(".")
    values: dict[str, Any] = {**WITH.get(path, {}), name: STUDY_EXAMPLES[path]}
    if sections == ["strategies"]:
        label = {} if name in ("name", "label") else {"label": "another"}
        given: dict[str, Any] = {"strategies": [{"name": "fedit"}, {"name": "fedavg", **label, **values}]}
        if name == "name":
            given = {"strategies": [values]}
    else:
        for section in reversed(sections):
            values = {section: values}
        given = {**ROWS, **values}
    validated(StudyConfig, {"output": "out", **given})
    assert name in {key.strip("# ") for key in re.findall(r"^([# ]*\w+) = ", study_text(), re.MULTILINE)}


def test_the_sections_that_are_comments_can_be_set() -> None:
    text = study_text()
    start = text.index("# [clients.data]")
    end = text.index("# Named partition settings")
    data = re.sub(r"^# ", "", text[start:end], flags=re.MULTILINE)
    given = tomllib.loads(text[:start] + data + text[end:])
    study = validated(StudyConfig, {**given, "output": "out"})
    assert study.clients.data is not None
    assert study.clients.data.source == "my_pictures"
