"""The losses of a study by round and by bytes: as curves for its plots, and as data frames."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fedaigc.study.results.comparison_tables import over_seeds, seed_losses
from fedaigc.study.results.plots import Curve
from fedaigc.study.results.summary import MODES, Mode, PartitionResults, RowResults

if TYPE_CHECKING:
    from pandas import DataFrame

_CURVES = ("row", "baseline", "round", "loss", "low", "high", "n")
_LOSSES = ("row", "baseline", "seed", "round", "mode", "client", "new", "loss")


def curves_by_round(result: PartitionResults, seeds: Sequence[int], mode: Mode) -> list[Curve]:
    """Return the loss against rounds of each row that trained under all seeds; it starts at the base, as runs do."""
    base = result.row("base")
    start = next(iter(r.losses("device") for r in base.records.values()), {})
    return [_by_round(row, seeds, mode, start) for row in _trained(result, seeds, mode)]


def curves_by_bytes(result: PartitionResults, seeds: Sequence[int], mode: Mode) -> list[Curve]:
    """Return the loss against the bytes of all messages since the start, of the same rows without the baselines."""
    return [_by_bytes(row, seeds, mode) for row in _trained(result, seeds, mode) if not row.baseline]


def curves_frame(result: PartitionResults, seeds: Sequence[int], mode: Mode) -> "DataFrame":
    """Return `curves_by_round` with a line for each row and round.

    Columns: row, baseline (whether it is a baseline), round (0: before training), loss (the mean over clients, then
    over seeds), low and high (its 95 % t interval over seeds; both equal the loss under one seed), n (seeds).
    """
    from pandas import DataFrame

    lines = [
        (curve.name, result.row(curve.name).baseline, round(x), y.mean, y.low, y.high, y.n)
        for curve in curves_by_round(result, seeds, mode)
        for x, y in zip(curve.x, curve.y, strict=True)
    ]
    return DataFrame(lines, columns=list(_CURVES))


def losses_frame(result: PartitionResults) -> "DataFrame":
    """Return every measured loss, with a line for each row, seed, round, mode and client.

    Columns: row, baseline, seed (of the base, which has none: the first), round, mode, client, new (whether the
    client never trained), loss. Rows that diverged or failed have no lines.
    """
    from pandas import DataFrame

    lines: list[tuple[Any, ...]] = []
    for row in result.rows:
        # the base is one run, which stands under every seed
        records = dict(list(row.records.items())[:1]) if row.name == "base" else row.records
        for seed, record in records.items():
            for at, measured in enumerate(record.evaluations):
                lines += [
                    (row.name, row.baseline, seed, int(measured["round"]), mode, client, new, loss)
                    for mode in MODES
                    for new in (False, True)
                    for client, loss in record.losses(mode, new=new, at=at).items()
                ]
    return DataFrame(lines, columns=list(_LOSSES))


def _trained(result: PartitionResults, seeds: Sequence[int], mode: Mode) -> list[RowResults]:
    rows = [row for row in result.rows if row.name != "base"]
    return [row for row in rows if row.complete(seeds) and row.scores(seeds, mode)]


def _by_round(row: RowResults, seeds: Sequence[int], mode: Mode, start: dict[int, float]) -> Curve:
    rounds = [int(each["round"]) for each in row.records[seeds[0]].evaluations]
    estimates = [over_seeds(_at(row, seeds, mode, at)) for at in range(len(rounds))]
    if start and rounds[0] > 0:
        rounds, estimates = [0, *rounds], [over_seeds([fmean(start.values())]), *estimates]
    return Curve(row.name, tuple(map(float, rounds)), tuple(estimates))


def _by_bytes(row: RowResults, seeds: Sequence[int], mode: Mode) -> Curve:
    record = row.records[seeds[0]]
    rounds = [int(each["round"]) for each in record.evaluations]
    sent = [
        fmean(
            sum(done["up"] + done["down"] for done in row.records[seed].rounds if done["round"] <= number)
            for seed in seeds
        )
        for number in rounds
    ]
    return Curve(
        row.name, tuple(sent), tuple(over_seeds(_at(row, seeds, mode, at)) for at in range(len(rounds)))
    )


def _at(row: RowResults, seeds: Sequence[int], mode: Mode, at: int) -> list[float]:
    return list(seed_losses(row, seeds, mode, at).values())
