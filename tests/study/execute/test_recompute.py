"""How a recomputed run is compared with its record."""

from typing import Any

from fedaigc.study.design.planned_runs import make_plan, prepare
from fedaigc.study.execute.recompute import _drawn, differences
from tests.study.conftest import MakeStudy, study_record

RECORD: dict[str, Any] = {
    "status": "finished",
    "base": "b",
    "clients": [{"client": 0, "images": 3}],
    "evaluations": [{"round": 2, "collaborative": [0.25]}],
    "shared_hash": "h",
    "seconds": 3.0,
    "written": "then",
    "versions": {"torch": "2.0", "flwr": "1.41"},
    "machine": {"processor": "this", "cores": 2},
}


def test_times_and_places_are_no_difference() -> None:
    later = RECORD | {"seconds": 9.0, "written": "now", "machine": {"processor": "that", "cores": 8}}
    assert differences(study_record(**RECORD), study_record(**later)) == []


def test_a_difference_is_named_with_what_may_explain_it() -> None:
    moved = [{"round": 2, "collaborative": [0.25000001]}]
    other = RECORD | {"evaluations": moved, "versions": {"torch": "2.1", "flwr": "1.41"}}
    assert differences(study_record(**RECORD), study_record(**other)) == [
        "evaluations differs",
        "versions: torch was 2.0, is 2.1",
    ]
    again = RECORD | {"shared_hash": "g"}
    assert differences(study_record(**RECORD), study_record(**again)) == ["shared_hash differs"]


def test_each_row_is_drawn_before_one_is_drawn_twice(make_study: MakeStudy) -> None:
    rows = [{"name": "fedit"}, {"name": "ditto"}]
    runs = make_plan(prepare(make_study(strategies=rows, seeds=[0, 1, 2])), {}).runs
    labels = {run.label for run in runs}
    for seed in range(5):
        assert {run.label for run in _drawn(runs, len(labels), seed)} == labels
    assert len({run.id for run in _drawn(runs, len(runs), 0)}) == len(runs)
    assert _drawn(runs, 4, 1) == _drawn(runs, 4, 1)
