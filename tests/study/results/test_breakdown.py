"""Differences by the weighting of clients, by hand: two clients with 1 and 3 pictures, one of an unseen style."""

import pytest

from fedaigc.study.results.breakdown import breakdown_table, difference
from fedaigc.study.results.summary import PartitionResults, RowResults
from tests.study.conftest import study_record

CLIENTS = [
    {"client": 0, "new": False, "images": 1, "composition": {"noto": 1}},
    {"client": 1, "new": False, "images": 3, "composition": {"blob": 3}},
    {"client": 2, "new": True, "images": 9, "composition": {"openmoji": 9}},
]


def row(name: str, *losses: tuple[float, float, float]) -> RowResults:
    records = {
        seed: study_record(
            status="finished",
            clients=CLIENTS,
            evaluations=[{"collaborative": list(values), "device": list(values)}],
        )
        for seed, values in enumerate(losses)
    }
    return RowResults(name, tuple(records), records)


REFERENCE = row("fedit", (1.0, 2.0, 9.0), (1.0, 2.0, 9.0))
# differences: -0.4 and 0.4 under seed 0, -0.2 and 0.6 under seed 1; the new client does not count
OTHER = row("other", (0.6, 2.4, 0.0), (0.8, 2.6, 0.0))


@pytest.mark.parametrize(
    ("who", "by_seed"),
    [
        ("clients alike", (0.0, 0.2)),
        ("by pictures", (0.2, 0.4)),  # (-.4 + 3 * .4) / 4, (-.2 + 3 * .6) / 4
        ("seen styles", (-0.4, -0.2)),
        ("unseen styles", (0.4, 0.6)),
    ],
)
def test_each_mean_by_hand(who: str, by_seed: tuple[float, float]) -> None:
    """t with one degree of freedom is 12.706, and the standard error of two values is half their distance."""
    found = difference(OTHER, REFERENCE, (0, 1), "collaborative", who)
    assert found is not None
    assert found.mean == pytest.approx(sum(by_seed) / 2)
    half = 12.7062 * abs(by_seed[1] - by_seed[0]) / 2
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=1e-4)


def test_the_table_has_a_row_for_every_complete_one() -> None:
    missing = RowResults("not run", (0, 1), {})
    results = PartitionResults("style", (REFERENCE, OTHER, missing), {})
    table = breakdown_table(results, (0, 1), "collaborative", "fedit")
    assert table is not None
    assert [cells[0] for cells in table.rows] == ["other"]
    assert len(table.columns) == 5
    assert breakdown_table(results, (0,), "collaborative", "fedit") is None
    assert breakdown_table(results, (0, 1), "collaborative", "not run") is None
