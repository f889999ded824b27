"""Tables and figures of the studies that `fedaigc compare` runs, from their committed records.

A study is named by its file in experiments/configs; a mode is "edge" or "device". SEEDS is the number of seeds
that a row must have: the study's own (0, the default), or that of a larger set that some rows have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from experiments.pages.markdown import markdown, selected
from experiments.pages.records import ROOT
from experiments.pages.registry import figure, table
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate
from fedaigc.strategy.registry import load_strategy
from fedaigc.study.design.config import StudyConfig, read_study
from fedaigc.study.design.planned_runs import prepare
from fedaigc.study.results import comparison_tables as result_tables
from fedaigc.study.results.breakdown import breakdown_table
from fedaigc.study.results.comparison_tables import seed_losses
from fedaigc.study.results.load import read_results
from fedaigc.study.results.records import read_records
from fedaigc.study.results.statistics import Comparison, margin_in_sds
from fedaigc.study.results.summary import Mode, PartitionResults, RowResults
from fedaigc.study.results.table_files import Table, shown

MODES: dict[str, Mode] = {"edge": "collaborative", "device": "device"}
# a word of a mark, and the header of the column in the comparison
_COLUMNS = {
    "loss": "loss",
    "diff": "difference to {}",
    "clients": "the same, over clients too",
    "p": "p (Holm)",
    "worst": "worst tenth",
    "new": "new clients",
    "up": "MB up",
    "down": "MB down",
    "seconds": "seconds",
    "epsilon": "epsilon",
}


@dataclass(frozen=True)
class Recorded:
    """A study with the results of its one partition."""

    study: StudyConfig
    results: PartitionResults

    @property
    def reference(self) -> str:
        """The row that the others are compared with."""
        return self.study.reference

    def row(self, name: str) -> RowResults:
        """Return a row by its name, or raise UserError if the study has no such row."""
        names = [row.name for row in self.results.rows]
        if name not in names:
            raise UserError(f"{name!r} is not a row of {self.study.name}: expected one of {', '.join(names)}")
        return self.results.row(name)

    def seeds(self, count: int) -> tuple[int, ...]:
        """Return the set of `count` seeds, or raise UserError if the study has none."""
        sets = self.results.seed_sets(self.study)
        found = [each for each in sets if len(each) == count] if count else [self.study.seeds]
        if not found:
            told = ", ".join(str(len(each)) for each in sets)
            raise UserError(f"{self.study.name} has no set of {count} seeds: expected one of {told}")
        return found[0]

    def whole(self, name: str, seeds: Sequence[int]) -> RowResults:
        """Return a row that has finished under these seeds, or raise UserError that names what is missing."""
        row = self.row(name)
        if not row.complete(seeds):
            raise UserError(f"{name} is not complete: {row.missing(seeds)}")
        return row


@cache
def recorded(name: str) -> Recorded:
    """Return a study by the name of its file, or raise UserError if there is none."""
    folder = ROOT / "experiments" / "configs"
    path = folder / f"{name}.toml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
        raise UserError(f"{name!r} is not a study: expected one of {there}")
    study = read_study(path)
    results = read_results(prepare(study))
    if len(results) != 1:
        raise UserError(f"{name} has {len(results)} partitions, and pages show studies of one")
    return Recorded(study, results[0])


def mode_of(name: str) -> Mode:
    """Return the mode of the word in a mark, or raise UserError for another word."""
    if name not in MODES:
        raise UserError(f"expected edge or device, got {name!r}")
    return MODES[name]


def comparison(study: str, row: str, mode: str, seeds: int) -> Comparison:
    """Return a row's comparison with the study's reference.

    Raises:
        UserError: If the row is incomplete or has no loss in this mode.
    """
    found = recorded(study)
    found.whole(row, found.seeds(seeds))
    compared = _compared(study, mode, seeds)
    if row not in compared:
        raise UserError(f"{row} is not compared with {found.reference} in {mode} mode")
    return compared[row]


@cache
def _compared(study: str, mode: str, seeds: int) -> dict[str, Comparison]:
    found = recorded(study)
    return result_tables.compared(found.results, found.seeds(seeds), mode_of(mode), found.reference)


def not_run(found: Recorded, seeds: Sequence[int], names: Sequence[str] | None = None) -> str:
    """Return lines that name the rows that lack some of these seeds; empty if none does."""
    rows = [row for row in found.results.rows if names is None or row.name in names]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if set(seeds) <= set(row.expected) and not row.complete(seeds):
            reasons.setdefault(row.missing(seeds), []).append(row.name)
    told = "".join(f"- {reason}: {'; '.join(names)}\n" for reason, names in reasons.items())
    return f"\nNot in this table:\n\n{told}" if told else ""


@table
def results(study: str, mode: str, seeds: int, *columns: str) -> str:
    """The rows of a study, e.g. `results strategies edge 5 loss diff p`; all columns if none is named.

    In device mode only the reference, and rows whose devices run another model than the edge server.
    """
    found = recorded(study)
    chosen = found.seeds(seeds)
    whole = result_tables.mode_table(found.results, chosen, mode_of(mode), found.reference)
    names = [*_COLUMNS] if not columns else [*columns]
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        raise UserError(f"{unknown[0]!r} is not a column: expected some of {', '.join(_COLUMNS)}")
    headers = [_COLUMNS[name].format(found.reference) for name in names]
    there = [column.header for column in whole.columns]
    kept = tuple(cells for cells in whole.rows if _has_part(found, str(cells[0]), chosen, mode))
    shown_table = Table(whole.columns, kept)
    text = selected(shown_table, ["row", *(header for header in headers if header in there)])
    personal = [
        row.row for row in found.study.strategies if load_strategy(row.name, row.options).traits.personal
    ]
    return text + not_run(
        found, chosen, None if mode == "edge" else ["local only", found.reference, *personal]
    )


def _has_part(found: Recorded, name: str, seeds: Sequence[int], mode: str) -> bool:
    """Whether a row has a loss in a mode; in device mode, of another model than the edge server's."""
    edge, device = (found.row(name).scores(seeds, MODES[each]) for each in ("edge", "device"))
    if mode == "edge":
        return bool(edge)
    differs = [score.value for score in device] != [score.value for score in edge]
    return bool(device) and (differs or name == found.reference)


@table
def tuning(study: str) -> str:
    """The values that every row was tuned over and to; rows without all trials are named below."""
    found = recorded(study)
    whole = result_tables.tuning_table(found.study, found.results)
    if whole is None:
        return f"\nNo row of {study} is tuned.\n"
    tuned = {cells[0] for cells in whole.rows}
    left = [row.name for row in found.results.rows if row.name not in tuned and row.name != "base"]
    told = f"\nNot in this table, for trials with the present code are missing:\n\n- {'; '.join(left)}\n"
    return selected(whole, [column.header for column in whole.columns]) + (told if left else "")


@table
def breakdown(study: str, mode: str, seeds: int) -> str:
    """Differences to the reference by which clients count: clients alike, by pictures, by styles."""
    found = recorded(study)
    chosen = found.seeds(seeds)
    whole = breakdown_table(found.results, chosen, mode_of(mode), found.reference)
    if whole is None:
        raise UserError(f"{found.reference} is not complete under {len(chosen)} seeds")
    return selected(whole, [column.header for column in whole.columns]) + not_run(found, chosen)


@table
def galleries(study: str) -> str:
    """Distances of pictures to real ones: rows at the edge, then rows that have devices' pictures alone."""
    found = recorded(study)
    tables = [
        result_tables.gallery_table(found.results, found.study.seeds, mode, found.reference)
        for mode in MODES.values()
    ]
    if tables[0] is None or tables[1] is None:
        raise UserError(f"{study} has no galleries of the base")
    columns = tables[0].columns
    edge = [
        [shown(cell, column.digits) for cell, column in zip(row, columns, strict=True)]
        for row in tables[0].rows
    ]
    at_edge = {row[0] for row in edge}
    device = [
        [shown(cell, column.digits) for cell, column in zip(row, columns, strict=True)]
        for row in tables[1].rows
        if row[0] not in at_edge
    ]
    edge[0][0] = "real pictures against real ones"
    rows = [*edge, *([f"{name}, each device its own shared stage", *cells] for name, *cells in device)]
    return markdown([column.header for column in columns], rows) + not_run(found, found.study.seeds)


@table
def notes(study: str) -> str:
    """What a reader of the tables has to know: other code, commits, machines, versions."""
    found = recorded(study)
    missing = tuple(f"{row.name}: " for row in found.results.rows)
    return "".join(f"- {note}\n" for note in found.results.notes if not note.startswith(missing))


@figure
def loss(study: str, row: str, mode: str = "edge", seeds: int = 0) -> Estimate | float:
    """Loss of a row: mean and interval over seeds, or one number if it does not depend on the seed."""
    found = recorded(study)
    chosen = found.seeds(seeds)
    values = list(seed_losses(found.whole(row, chosen), chosen, mode_of(mode)).values())
    if not values:
        raise UserError(f"{row} has no loss in {mode} mode")
    estimate = result_tables.over_seeds(values)
    return estimate.mean if estimate.low == estimate.high else estimate


@figure
def diff(study: str, row: str, mode: str = "edge", seeds: int = 0) -> Estimate:
    """Difference of a row to the study's reference, with its interval over seeds."""
    return comparison(study, row, mode, seeds).over_seeds


@figure
def gap(study: str, row: str, mode: str = "edge", seeds: int = 0) -> float:
    """Difference of a row to the reference, without its interval."""
    return diff(study, row, mode, seeds).mean


@figure
def gain(study: str, row: str, mode: str = "edge", seeds: int = 0) -> Estimate:
    """How far a row is below the reference, with its interval."""
    found = diff(study, row, mode, seeds)
    return Estimate(-found.mean, -found.high, -found.low, found.n)


@figure
def below(study: str, row: str, other: str, mode: str = "edge", seeds: int = 0) -> float:
    """How far the loss of a row is below that of another."""
    found = recorded(study)
    chosen = found.seeds(seeds)
    one, higher = (
        fmean(seed_losses(found.whole(name, chosen), chosen, mode_of(mode)).values()) for name in (row, other)
    )
    return higher - one


@figure
def p(study: str, row: str, mode: str = "edge", seeds: int = 0) -> float:
    """p of the paired t test of a row against the reference, corrected by Holm for all rows that are run."""
    return comparison(study, row, mode, seeds).p_holm


@figure
def under_seeds(study: str, row: str, *seeds: int) -> list[float]:
    """How far a row is below the reference at the edge, under each of these seeds."""
    found = recorded(study)
    rows = [found.whole(name, seeds) for name in (row, found.reference)]
    one, other = (seed_losses(each, seeds, "collaborative") for each in rows)
    return [other[seed] - one[seed] for seed in seeds]


@figure
def way(study: str, row: str, seeds: int = 0, start: str = "base") -> float:
    """Share of the way from one row (default: the base) to pooled that another row covers, at the edge."""
    found = recorded(study)
    chosen = found.seeds(seeds)
    begin, here, end = (
        fmean(seed_losses(found.whole(name, chosen), chosen, "collaborative").values())
        for name in (start, row, "pooled")
    )
    return (begin - here) / (begin - end)


@figure
def gate(study: str, what: str, seeds: int = 0) -> float:
    """Reduction of the base's loss by pooled training: "gain", or in standard deviations over seeds "sds"."""
    found = recorded(study)
    chosen = found.seeds(seeds)
    base, pooled = (
        seed_losses(found.whole(name, chosen), chosen, "collaborative") for name in ("base", "pooled")
    )
    gain = fmean(base.values()) - fmean(pooled.values())
    if what not in ("gain", "sds"):
        raise UserError(f"expected gain or sds, got {what!r}")
    return gain if what == "gain" else margin_in_sds(base, pooled)


@figure
def new_clients(study: str, row: str, mode: str = "edge", seeds: int = 0) -> float:
    """Loss of a row on the clients that never train."""
    found = recorded(study)
    chosen = found.seeds(seeds)
    scores = found.whole(row, chosen).scores(chosen, mode_of(mode), new=True)
    if not scores:
        raise UserError(f"{row} has no loss of new clients in {mode} mode")
    return fmean(score.value for score in scores)


@figure
def traffic(study: str, row: str, direction: str) -> float:
    """Bytes of a row, up or down, relative to those of the reference."""
    found = recorded(study)
    seeds = found.study.seeds
    rows = [found.whole(name, seeds) for name in (row, found.reference)]
    one, other = (fmean((each.records[seed].bytes or {})[direction] for seed in seeds) for each in rows)
    return one / other


@figure
def held(study: str, what: str) -> tuple[int, int]:
    """Smallest and largest number of "images" or "steps" of the clients that train."""
    values = [client[what] for client in _clients(study) if not client["new"]]
    return min(values), max(values)


@figure
def clients(study: str, which: str) -> int:
    """Number of clients that train ("old") or are only evaluated ("new")."""
    return sum(client["new"] == (which == "new") for client in _clients(study))


@figure
def runs(study: str) -> int:
    """Number of recorded runs of a study, trials among them."""
    found = recorded(study)
    return sum(each.run["study"] == found.study.name for each in read_records(found.study.records_folder))


def _clients(study: str) -> Sequence[Mapping[str, Any]]:
    found = recorded(study)
    row = found.row(found.reference)
    if not row.records:
        raise UserError(f"{row.name} has not been run")
    return next(iter(row.records.values())).clients
