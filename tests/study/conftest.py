"""Studies of the smallest size: a pipeline of 60,000 weights, four clients, and few steps."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedaigc.study.design.config import StudyConfig, read_study
from fedaigc.study.results.records import StudyRecord

# a client of 2 images, one of 5, one of 7, and a new one
VALUES: dict[str, Any] = {
    "name": "tiny",
    "output": "out",
    "seeds": [0],
    "workers": 1,
    "keep_work": True,
    "model": {"height": 32, "width": 32},
    "adapter": {"rank": 2},
    "rounds": {"count": 2},
    "training": {"batch_size": 2, "learning_rate": 1e-2, "personal_steps": 1},
    "clients": {
        "number": 4,
        "images": 24,
        "new": [3],
        "local_epochs": 0.7,
        "partitions": {"iid": {"kind": "iid", "size_skew": "linear"}},
    },
    "evaluation": {"triples": 6, "test_images": 4, "validation_images": 2, "every": 1},
    "strategies": [{"name": "fedit"}],
}

WriteStudy = Callable[..., Path]
MakeStudy = Callable[..., StudyConfig]


def study_record(**values: Any) -> StudyRecord:
    """Return the record of a run with these values."""
    needed: dict[str, Any] = dict.fromkeys(("id", "hash", "written", "status"), "")
    needed |= dict.fromkeys(("commit", "dirty")) | dict.fromkeys(("clients", "evaluations"), ())
    return StudyRecord(**needed | {name: {} for name in ("versions", "machine", "run")} | values)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with other entries, table by table. None removes an entry."""
    found = dict(values)
    for key, value in changes.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = merged(found[key], value)
        else:
            found[key] = value
    return found


def toml(values: Mapping[str, Any]) -> str:
    """Return TOML with inline tables, which are JSON except for the equals sign."""

    def inline(value: Any) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(inline, value)) + "]"
        return json.dumps(value)

    return "".join(f"{key} = {inline(value)}\n" for key, value in values.items())


@pytest.fixture
def write_study(small_model: Path, tmp_path: Path) -> WriteStudy:
    """Write the TOML file of a study with changes to a folder in `tmp_path`."""

    def write(folder: str = "study", **changes: Any) -> Path:
        path = tmp_path / folder / "study.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        model = {"model": {"name": str(small_model)}}
        path.write_text(toml(merged(merged(VALUES, model), changes)))
        return path

    return write


@pytest.fixture
def make_study(write_study: WriteStudy) -> MakeStudy:
    """Return such a study as an object."""

    def make(folder: str = "study", **changes: Any) -> StudyConfig:
        return read_study(write_study(folder, **changes))

    return make
