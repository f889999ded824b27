"""The column of epsilon: present if a row has noise, and a number only if an epsilon holds."""

from typing import Any

import pytest

from fedaigc.strategy.accountant import epsilon
from fedaigc.study.results.comparison_tables import mode_table
from fedaigc.study.results.records import StudyRecord
from fedaigc.study.results.summary import PartitionResults, RowResults
from tests.study.conftest import WriteStudy, study_record
from tests.study.test_compare import compare, records_of

DP = {"dp": "server-fixed", "noise_multiplier": 1.0, "clipping_norm": 1.0}


def record(options: dict[str, Any], dp: dict[str, Any] | None = None) -> StudyRecord:
    return study_record(
        status="finished",
        run={"kind": "strategy", "federation": {"rounds": {"options": options}}},
        clients=[{"client": 0, "new": False}],
        evaluations=[{"round": 1, "collaborative": [0.2], "device": [0.2]}],
        dp=dp,
    )


def spent(epsilon: float | None) -> dict[str, Any]:
    return {"epsilon": epsilon, "delta": 1e-5}


def column(**rows: list[StudyRecord]) -> dict[str, Any] | None:
    made = tuple(RowResults(name, (0, 1), dict(enumerate(found))) for name, found in rows.items())
    table = mode_table(PartitionResults("iid", made, {}), (0, 1), "collaborative", "fedit")
    headers = [each.header for each in table.columns]
    if "epsilon" not in headers:
        return None
    return {str(row[0]): row[headers.index("epsilon")] for row in table.rows}


def test_there_is_none_without_noise() -> None:
    assert column(fedit=[record({}), record({})]) is None


def test_the_largest_over_seeds_or_that_none_holds() -> None:
    assert column(
        fedit=[record({})] * 2,
        noisy=[record(DP, spent(17.857)), record(DP, spent(20.1234))],
        weak=[record(DP, spent(51347.68))] * 2,
        seeded=[record(DP, spent(17.857)), record(DP | {"insecure_seed": 0}, spent(None))],
        before_the_accountant=[record(DP)] * 2,
    ) == {
        "fedit": "–",
        "noisy": "20.12 (delta 1e-05)",
        "weak": "51,348 (delta 1e-05)",
        "seeded": "none",
        "before_the_accountant": "none",
    }


@pytest.mark.slow
def test_a_study_records_epsilon_and_shows_it(write_study: WriteStudy) -> None:
    strategies = [{"name": "fedit"}, {"name": "fedavg", "label": "noisy", "options": DP}]
    path = write_study(strategies=strategies)
    done = compare(path)
    assert done.returncode == 0, done.stdout + done.stderr
    by_row = {each["run"]["label"]: each for each in records_of(path).values()}
    # two rounds, evaluated after each, so that the run is gone on with once
    assert by_row["noisy"]["dp"]["epsilon"] == pytest.approx(epsilon([1.0] * 2, 1e-5))
    assert by_row["noisy"]["dp"]["repeated"] == 0
    assert "dp" not in by_row["fedit"]
    report = (path.parent / "out" / "report.md").read_text()
    assert f"{epsilon([1.0] * 2, 1e-5):.4g} (delta 1e-05) |" in report
    assert "Epsilon: of the noise of one run" in report
