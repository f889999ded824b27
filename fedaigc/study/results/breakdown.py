"""The differences of a table again, with clients weighted by their number of images, and by their styles."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedaigc.data.sprites import HELD_OUT_STYLES
from fedaigc.metrics.intervals import Estimate
from fedaigc.study.results.comparison_tables import over_seeds
from fedaigc.study.results.records import StudyRecord
from fedaigc.study.results.summary import Mode, PartitionResults, RowResults
from fedaigc.study.results.table_files import NONE, Cell, Column, Table

_DIGITS = 4


def breakdown_table(
    results: PartitionResults, seeds: Sequence[int], mode: Mode, reference: str
) -> Table | None:
    """Return the differences of every complete row to the reference: clients alike, by images, and by style.

    The runs are those of the mode's table. The four columns are means over the clients that train: all clients
    alike; each weighted by its number of images; clients whose images all have styles that the shipped model was
    trained on; clients that hold a style that it never saw. Intervals are t intervals over seeds, paired, without
    a correction for several rows.

    Args:
        results: The results of one partition.
        seeds: The seeds to compare.
        mode: The mode whose losses are compared.
        reference: The row that the others are compared with.

    Returns:
        The table; None for one seed, and if the reference or all other rows have no scores.
    """
    base = results.row(reference)
    if len(seeds) < 2 or not _scored(base, seeds, mode):
        return None
    # own pictures have no styles of Scenes
    own = base.records[seeds[0]].run.get("data", {}).get("own") is not None
    names = [name for name in _WEIGHTS if not own or "styles" not in name]
    rows: list[tuple[Cell, ...]] = []
    for row in results.rows:
        if row.name == reference or not _scored(row, seeds, mode):
            continue
        found = [difference(row, base, seeds, mode, name) for name in names]
        rows.append((row.name, *(NONE if each is None else each for each in found)))
    columns = (Column("row"), *(Column(name, "right", _DIGITS) for name in names))
    return Table(columns, tuple(rows)) if rows else None


def difference(
    row: RowResults, base: RowResults, seeds: Sequence[int], mode: Mode, weighting: str
) -> Estimate | None:
    """Return the estimate of row minus base in one of the means; None if it includes no client.

    Args:
        row: The row.
        base: The row that it is compared with.
        seeds: The seeds to compare.
        mode: The mode whose losses are compared.
        weighting: "clients alike", "by pictures", "seen styles" or "unseen styles".
    """
    found = seed_differences(row, base, seeds, mode, weighting)
    return None if found is None else over_seeds(found)


def seed_differences(
    row: RowResults, base: RowResults, seeds: Sequence[int], mode: Mode, weighting: str
) -> list[float] | None:
    """Return row minus base under each seed, in one of the means of `difference`; None if it includes no client."""
    weight = _WEIGHTS[weighting]
    found = []
    for seed in seeds:
        one, other = (each.records[seed].losses(mode) for each in (row, base))
        weights = weight(_clients(row, base, seed))
        shared = sorted(one.keys() & other.keys() & weights.keys())
        if not shared:
            return None
        gaps = [one[client] - other[client] for client in shared]
        found.append(float(np.average(gaps, weights=[weights[client] for client in shared])))
    return found


def _clients(row: RowResults, base: RowResults, seed: int) -> StudyRecord:
    # the base has no seed; its one record stands under each
    return base.records[seed] if row.name == "base" else row.records[seed]


def _scored(row: RowResults, seeds: Sequence[int], mode: Mode) -> bool:
    return row.complete(seeds) and bool(row.scores(seeds, mode))


def _alike(record: StudyRecord) -> dict[int, float]:
    return {client["client"]: 1.0 for client in record.clients}


def _by_pictures(record: StudyRecord) -> dict[int, float]:
    return {client["client"]: float(client["images"]) for client in record.clients}


def _unseen(client: Mapping[str, Any]) -> bool:
    return bool(set(client["composition"]) & set(HELD_OUT_STYLES))


def _of_seen_styles(record: StudyRecord) -> dict[int, float]:
    return {client["client"]: 1.0 for client in record.clients if not _unseen(client)}


def _of_unseen_styles(record: StudyRecord) -> dict[int, float]:
    return {client["client"]: 1.0 for client in record.clients if _unseen(client)}


_WEIGHTS: Mapping[str, Callable[[StudyRecord], Mapping[int, float]]] = {
    "clients alike": _alike,
    "by pictures": _by_pictures,
    "seen styles": _of_seen_styles,
    "unseen styles": _of_unseen_styles,
}
