"""The notes beside the tables on records of other code."""

from fedaigc.study.design.config import StudyConfig
from fedaigc.study.results.records import StudyRecord
from fedaigc.study.results.summary import collect
from tests.study.conftest import study_record

STUDY = StudyConfig.model_validate(
    {
        "name": "notes",
        "output": "out",
        "seeds": [0, 1, 2],
        "strategies": [{"name": "fedit"}, {"name": "flora"}],
    }
)


def record(label: str, seed: int | None) -> StudyRecord:
    return study_record(
        hash=f"{label}-{seed}",
        status="finished",
        written="2026-01-01T00:00:00+00:00",
        run={"study": "notes", "purpose": "report", "label": label, "partition": "style", "seed": seed},
        commit="c0ffee",
        dirty=False,
        machine={"cores": 2},
        versions={"torch": "2"},
        shared_hash=f"{label}-{seed}",
        evaluations=[{"device": None}],
    )


def test_rows_of_other_code_are_named_once_with_their_seeds() -> None:
    records = [record("base", None), *(record(row, seed) for row in ("fedit", "flora") for seed in (0, 1, 2))]
    expected: dict[tuple[str, str, int | None], str] = {
        ("flora", "style", seed): f"flora-{seed}" for seed in (0, 2)
    }
    (found,) = collect(STUDY, records, expected, {})
    assert found.notes == (
        "pooled: not run under seed 0, 1, 2.",
        "local only: not run under seed 0, 1, 2.",
        "Made with other code or other tuned values than a new run would have: base; fedit (seed 0, 1, 2); "
        "flora (seed 1).",
    )
