"""The column of epsilon: there where a row has noise, and a number only where one holds."""

from typing import Any

from fedaigc.comparison.result_tables import mode_table
from fedaigc.comparison.summary import PartitionResults, RowResults

DP = {"dp": "server-fixed", "noise_multiplier": 1.0, "clipping_norm": 1.0}


def record(options: dict[str, Any], dp: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "status": "finished",
        "run": {"kind": "strategy", "federation": {"rounds": {"options": options}}},
        "clients": [{"client": 0, "new": False}],
        "evaluations": [{"round": 1, "collaborative": [0.2], "device": [0.2]}],
    }
    return found if dp is None else found | {"dp": dp}


def spent(epsilon: float | None) -> dict[str, Any]:
    return {"epsilon": epsilon, "delta": 1e-5}


def column(**rows: list[dict[str, Any]]) -> dict[str, Any] | None:
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
