"""The configuration of a study: errors are named, with the nearest key, before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from fedaigc.errors import UserError
from fedaigc.study.design.config import read_study
from fedaigc.study.design.planned_runs import make_plan, prepare
from tests.study.conftest import MakeStudy, WriteStudy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worker": 2}, "worker: unknown key; the nearest known one is 'workers'"),
        ({"clients": {"numbers": 3}}, "clients.numbers: unknown key; the nearest known one is 'number'"),
        (
            {"clients": {"partitions": {"iid": {"kinds": "iid"}}}},
            "clients.partitions.iid.kinds: unknown key; the nearest known one is 'kind'",
        ),
        ({"strategies": [{"name": "fedit", "tunes": {}}]}, "strategies.0.tunes: unknown key; .* 'tune'"),
        ({"label_column": "label"}, r"label_column: unknown key here; it is a key of clients\.data$"),
        ({"alpha": 0.3}, r"alpha: .* a key of adapter and of clients\.partitions\.NAME$"),
        ({"tuning": {"trails": 3}}, "tuning.trails: unknown key; the nearest known one is 'trials'"),
        ({"training": {"learning_rat": 1}}, "training.learning_rat: unknown key; .* 'learning_rate'"),
        ({"rounds": {"strategy": "fedit"}}, r"rounds.strategy is not allowed"),
        ({"rounds": {"count": 0}}, "rounds.count is 0"),
        ({"rounds": {"clients": 4}}, "rounds.clients is 4: expected at most 3"),
        ({"seeds": []}, r"expected one or more different seeds, got \[\]"),
        ({"seeds": [1, 1]}, r"expected one or more different seeds, got \[1, 1\]"),
        ({"reference": "fedat"}, "reference 'fedat' is not a row: expected one of fedit"),
        ({"tuning": {"seeds": [0]}}, "seed 0 is used for tuning and reported"),
        ({"strategies": [{"name": "fedit"}] * 2}, "two strategies are called 'fedit'"),
        ({"strategies": [{"name": "fedit", "label": "base"}]}, "'base' is the label of a baseline"),
        ({"strategies": [{"name": "fedit", "mixed_ranks": True}]}, "mixed_ranks needs clients.ranks"),
        ({"strategies": []}, "reference 'fedit' is not a row"),
        ({"clients": {"new": [4]}}, "new: expected different clients from 0 to 3"),
        ({"clients": {"new": [1, 2, 3]}}, "at least two must train"),
        ({"clients": {"local_steps": [1]}}, "local_steps has 1 value for 4 clients"),
        ({"clients": {"local_steps": [1, 1, 1, 1]}}, "local_steps and local_epochs are mutually exclusive"),
        ({"clients": {"ranks": [1, 2]}}, "ranks has 2 values for 4 clients"),
        ({"clients": {"styles": ["notto"]}}, "style 'notto' is unknown"),
        ({"strategies": [{"name": "fedit", "tune": {"seed": [1, 2]}}]}, "'seed': expected a key such as"),
        (
            {"strategies": [{"name": "fedit", "settings": {"rounds.count": 3}}]},
            "'rounds.count': expected a key",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_change(
    write_study: WriteStudy, changes: dict[str, Any], message: str
) -> None:
    path = write_study(**changes)
    with pytest.raises(UserError, match=message) as error:
        read_study(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": [{"name": "fedit"}, {"name": "fedot"}]}, "'fedot' is unknown; did you mean 'fedit'"),
        ({"strategies": [{"name": "fedit"}, {"name": "ditto", "options": {"nu": 1}}]}, "no option 'nu'"),
        (
            {"strategies": [{"name": "fedit"}, {"name": "fedavg"}]},
            "'fedavg' and 'fedit' are the same rule by construction",
        ),
        (
            {"strategies": [{"name": "fedit"}, {"name": "fedprox", "options": {"proximal_mu": 0.0}}]},
            "'fedprox' and 'fedit' are the same rule by construction",
        ),
        (
            {"strategies": [{"name": "fedit"}, {"name": "fedit", "label": "again"}]},
            "'again' and 'fedit' are the same rule",
        ),
        (
            {
                "clients": {"ranks": [2, 2, 1, 1]},
                "strategies": [{"name": "fedit"}, {"name": "ditto", "mixed_ranks": True}],
            },
            "ditto needs equal ranks",
        ),
        ({"tuning": {"trials": 5}}, "its grid has 4 points, and every row gets 5 trials"),
        (
            {
                "tuning": {"trials": 2},
                "strategies": [{"name": "fedit", "tune": {"training.learning_rate": [1e-3, 1e-3]}}],
            },
            "training.learning_rate is tuned over a list of different values",
        ),
        (
            {"strategies": [{"name": "fedit", "settings": {"training.learning_rat": 1.0}}]},
            "training.learning_rat: unknown key; .* 'learning_rate'",
        ),
        ({"clients": {"images": 5, "partitions": {"iid": {"size_skew": "exponential"}}}}, "size_skew"),
        ({"clients": {"partitions": {"iid": None, "c": {"kind": "dirichlet", "column": "x"}}}}, "column 'x'"),
    ],
)
def test_what_only_rules_and_data_can_tell_is_told_before_anything_runs(
    make_study: MakeStudy, changes: dict[str, Any], message: str
) -> None:
    study = make_study(**changes)
    with pytest.raises(UserError, match=message):
        prepare(study)
    assert not study.output.exists()


def test_one_rule_with_other_options_or_settings_is_another_row(make_study: MakeStudy) -> None:
    study = make_study(
        strategies=[
            {"name": "fedit"},
            {"name": "fedit", "label": "rank 1", "settings": {"adapter": {"rank": 1}}},
            {"name": "fedprox", "options": {"proximal_mu": 0.1}},
            {"name": "fedprox", "label": "fedprox 1", "options": {"proximal_mu": 1.0}},
        ]
    )
    plan = make_plan(prepare(study), {})
    assert len({run.hash for run in plan.runs}) == len(plan.runs) == 3 + 4


def test_paths_count_from_the_file_and_nested_keys_are_flat(write_study: WriteStudy) -> None:
    path = write_study(
        records="../kept", strategies=[{"name": "fedit", "tune": {"training": {"learning_rate": [1e-3, 2]}}}]
    )
    study = read_study(path)
    assert study.output == path.parent / "out"
    assert study.records_folder.resolve() == path.parent.parent.resolve() / "kept"
    assert study.strategies[0].tune == {"training.learning_rate": [1e-3, 2]}
    assert Path(study.model.name).is_absolute()
    # paths of the command line count from the working folder
    changed = read_study(path, ["output=elsewhere", "name=2024"])
    assert (changed.output, changed.name) == (Path.cwd() / "elsewhere", "2024")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (
            "clients.data.source",
            {
                "clients": {
                    "number": 2,
                    "images": None,
                    "new": [],
                    "partitions": None,
                    "data": {"source": "mine"},
                }
            },
        ),
        ("evaluation.clip_model", {"evaluation": {"scorer": "clip", "clip_model": "mine", "gallery": 4}}),
    ],
)
def test_a_path_that_may_be_a_hub_name_counts_from_the_file_alone(
    write_study: WriteStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, values: dict[str, Any]
) -> None:
    def read(*changes: str) -> str:
        found = read_study(path, changes)
        return found.clients.data.source if found.clients.data is not None else found.evaluation.clip_model

    path, here = write_study(**values), tmp_path / "working"
    here.mkdir()
    monkeypatch.chdir(here)
    assert read() == "mine"
    (here / "mine").mkdir()
    with pytest.raises(UserError, match=rf"{key} = 'mine': no such file or folder in .*working/mine"):
        read()
    (path.parent / "mine").mkdir()
    assert read() == str(path.parent / "mine")
    assert read(f"{key}=./mine") == str(here / "mine")


@pytest.mark.parametrize("name", ["strategies", "strategies_small"])
def test_the_configurations_of_the_project_are_right(name: str) -> None:
    study = read_study(Path(__file__).parents[3] / "experiments" / "configs" / f"{name}.toml")
    plan = make_plan(prepare(study), {})
    assert plan.later or study.tuning is None
    assert {"blob", "openmoji"} <= set(study.clients.styles)
    assert study.clients.number - len(study.clients.new) >= 8 or name == "strategies_small"
