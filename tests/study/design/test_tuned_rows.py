"""Rows that tune further keys, over more rounds, or take another row's choice, and their notes in tables."""

from typing import Any

import pytest

from fedaigc.errors import UserError
from fedaigc.study.design.config import StudyConfig, grid_of
from fedaigc.study.design.planned_runs import make_plan, prepare
from fedaigc.study.results.comparison_tables import EDGE_MARK, tuning_table
from fedaigc.study.results.records import StudyRecord
from fedaigc.study.results.summary import collect
from tests.study.conftest import MakeStudy, study_record

RATES = [1e-3, 1e-2]


def study_of(make_study: MakeStudy, *rows: dict[str, Any], **tuning: Any) -> StudyConfig:
    common = {"trials": 2, "grid": {"training.learning_rate": RATES}, "seeds": [100], "extensions": 0}
    return make_study(strategies=[{"name": "fedit"}, *rows], tuning={**common, **tuning})


def recorded_trials(study: StudyConfig, loss_of: dict[str, float]) -> dict[str, StudyRecord]:
    """Return records of all trials, with a loss by learning rate."""
    runs = make_plan(prepare(study), {}).runs
    return {
        run.hash: study_record(
            hash=run.hash,
            status="finished",
            run=run.model_dump(mode="json"),
            written="2026-01-01T00:00:00+00:00",
            clients=[{"client": 0, "new": False}],
            evaluations=[{"collaborative": [loss_of[str(run.values["training.learning_rate"])]]}],
        )
        for run in runs
        if run.purpose == "trial"
    }


def test_a_row_s_keys_are_added_to_the_common_grid(make_study: MakeStudy) -> None:
    row = {"name": "ditto", "tune": {"options.mu": [0.1, 1.0]}}
    study = study_of(make_study, row, trials=4, grid={"training.learning_rate": [*RATES, 1e-1, 1.0]})
    assert grid_of(study, study.strategies[1]) == {
        "options.mu": [0.1, 1.0],
        "training.learning_rate": [*RATES, 1e-1, 1.0],
    }
    fixed = {"name": "ditto", "tune": {"options.mu": [0.1, 1.0], "training.learning_rate": [1e-2]}}
    study = study_of(make_study, fixed)
    grid = grid_of(study, study.strategies[1])
    assert grid == {"options.mu": [0.1, 1.0], "training.learning_rate": [1e-2]}


def test_trials_are_as_long_as_runs_unless_said_otherwise(make_study: MakeStudy) -> None:
    def counts(study: StudyConfig) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for run in make_plan(prepare(study), {}).runs:
            if run.purpose == "trial":
                found.setdefault(run.label, set()).add(run.federation["rounds"]["count"])
        return found

    whole = study_of(make_study)
    assert set(map(tuple, counts(whole).values())) == {(2,)}
    assert whole.tuned_shorter == []
    row = {"name": "ditto", "tuning_rounds": 2}
    short = study_of(make_study, row, rounds=1)
    assert counts(short) == {"pooled": {1}, "local only": {1}, "fedit": {1}, "ditto": {2}}
    assert short.tuned_shorter == ["pooled", "local only", "fedit"]


def test_a_control_takes_the_values_of_what_it_controls(make_study: MakeStudy) -> None:
    """fedit alone would also choose 1e-2. The control's own rule is never tried."""
    control = {"name": "ditto", "label": "control", "tuned_as": "fedit"}
    study = study_of(make_study, control)
    records = recorded_trials(study, {"0.001": 2.0, "0.01": 1.0})
    plan = make_plan(prepare(study), records)
    assert {run.label for run in plan.runs if run.purpose == "trial"} == {"pooled", "local only", "fedit"}
    (run,) = (run for run in plan.runs if run.label == "control")
    assert run.values == {"training.learning_rate": 1e-2}
    assert run.federation["rounds"]["strategy"] == "ditto"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tuned_as": "flora"}, "tuned_as is 'flora', which is not a row with its own trials"),
        ({"tuned_as": "fedit", "tuning_rounds": 3}, "tuned_as and its own tuning are mutually exclusive"),
        (
            {"tuned_as": "fedit", "tune": {"options.mu": [1.0]}},
            "tuned_as and its own tuning are mutually exclusive",
        ),
    ],
)
def test_a_control_of_nothing_is_refused(make_study: MakeStudy, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        study_of(make_study, {"name": "ditto", **row})


def test_the_table_shows_every_value_that_was_tried(make_study: MakeStudy) -> None:
    """From the current records of the trials, and not from what runs recorded when they were made."""
    control = {"name": "ditto", "label": "control", "tuned_as": "fedit"}
    study = study_of(make_study, control)
    records = recorded_trials(study, {"0.001": 2.0, "0.01": 1.0})
    plan = make_plan(prepare(study), records)
    (result,) = collect(study, list(records.values()), {}, plan.choices)
    table = tuning_table(study, result)
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    chosen = f"learning_rate = 0.01{EDGE_MARK}"
    assert rows["fedit"] == ("2", "2", "learning_rate 0.001, 0.01", chosen, "1.0000")
    assert rows["control"] == ("as fedit", "2", "learning_rate 0.001, 0.01", chosen, "1.0000")
    assert tuning_table(make_study(), result) is None
