"""The content of the records of a study: scores by row, seed and client, and notes on what is missing or unusual."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedaigc.study.design.config import BASELINES, StudyConfig
from fedaigc.study.design.tuning import Choice
from fedaigc.study.results.records import StudyRecord, by_hash
from fedaigc.study.results.statistics import Score

Mode = Literal["collaborative", "device"]
MODES: tuple[Mode, ...] = ("collaborative", "device")


@dataclass(frozen=True)
class RowResults:
    """The records of one row under one partition.

    Attributes:
        name: Name of the row.
        expected: The seeds that the row should have.
        records: The records by seed.
        tuning: How the row's values are chosen by the current records of its trials; None without tuning.
    """

    name: str
    expected: tuple[int, ...]
    records: Mapping[int, StudyRecord]
    tuning: Choice | None = None

    @property
    def baseline(self) -> bool:
        """Whether it is one of the rows that every table has."""
        return self.name in BASELINES

    def complete(self, seeds: Iterable[int]) -> bool:
        """Return whether every one of these seeds has finished."""
        return all(seed in self.records and self.records[seed].status == "finished" for seed in seeds)

    def scores(self, seeds: Iterable[int], mode: Mode, *, new: bool = False, at: int = -1) -> list[Score]:
        """Return the scores of the finished seeds among `seeds`; none if the mode has no model.

        Args:
            seeds: The seeds.
            mode: The mode.
            new: Whether to return the clients that never trained, in place of those that train.
            at: Position of the evaluation, by default the last.
        """
        return [
            Score(self.name, seed, str(client), value)
            for seed in seeds
            if seed in self.records
            for client, value in self.records[seed].losses(mode, new=new, at=at).items()
        ]

    def missing(self, seeds: Sequence[int]) -> str:
        """Return why the row is not in the table of these seeds, e.g. "diverged under seed 1, 2"."""
        reasons: dict[str, list[str]] = {}
        for seed in seeds:
            status = self.records[seed].status if seed in self.records else "not run"
            if status != "finished":
                reasons.setdefault(status, []).append(str(seed))
        return "; ".join(f"{status} under seed {', '.join(found)}" for status, found in reasons.items())


@dataclass(frozen=True)
class PartitionResults:
    """All rows under one partition.

    Attributes:
        partition: Name of the partition.
        rows: The rows, in the order of a table.
        personal: The records of the personal stage by seed, if it has runs of its own.
        notes: What a reader of the tables has to know in addition.
    """

    partition: str
    rows: tuple[RowResults, ...]
    personal: Mapping[int, StudyRecord]
    notes: tuple[str, ...] = field(default=())

    def row(self, name: str) -> RowResults:
        """Return a row by its name."""
        return next(row for row in self.rows if row.name == name)

    def seed_sets(self, study: StudyConfig) -> list[tuple[int, ...]]:
        """Return the seeds of each table: the study's, and larger sets that some rows have instead."""
        found = {row.expected for row in self.rows if set(row.expected) > set(study.seeds)}
        return [study.seeds, *sorted(found, key=len)]


def collect(
    study: StudyConfig,
    records: Sequence[StudyRecord],
    expected: Mapping[tuple[str, str, int | None], str],
    choices: Mapping[tuple[str, str], Choice],
) -> list[PartitionResults]:
    """Return the results of a study, by partition.

    If the run that the current code expects has no record, a record with another hash (older code, or values from
    earlier tuning) takes its place, and a note states this.

    Args:
        study: The study.
        records: All records.
        expected: For (row, partition, seed), the hash of the run with the current code.
        choices: The tuning by (row, partition).
    """
    done, found = by_hash(records), []
    # the latest of each; a record that is done has precedence over a failed one
    named: dict[tuple[str, str, int | None], StudyRecord] = {}
    for record in sorted(records, key=lambda record: (record.is_done, record.written)):
        run = record.run
        if run["purpose"] == "report" and run["study"] == study.name:
            named[run["label"], run["partition"], run["seed"]] = record

    for partition in study.clients.partitions:
        stale: dict[str, list[str]] = {}

        def pick(
            name: str, seed: int | None, at: str = partition, old: dict[str, list[str]] = stale
        ) -> StudyRecord | None:
            key = (name, at, seed)
            if expected.get(key) in done:
                return done[expected[key]]
            if key in named and named[key].is_done:
                old.setdefault(name, []).append(str(seed))
            return named.get(key)

        rows = []
        for name, seeds in _expected_rows(study):
            picked = {seed: pick(name, None if name == "base" else seed) for seed in seeds}
            rows.append(
                RowResults(
                    name,
                    seeds,
                    {seed: each for seed, each in picked.items() if each is not None},
                    choices.get((name, partition)),
                )
            )
        apart = {seed: pick("personal", seed) for seed in study.seeds if study.personal == "once"}
        personal = {s: record for s, record in apart.items() if record is not None and record.is_done}
        result = PartitionResults(partition, tuple(rows), personal)
        found.append(PartitionResults(partition, tuple(rows), personal, tuple(_notes(result, stale))))
    return found


def _expected_rows(study: StudyConfig) -> list[tuple[str, tuple[int, ...]]]:
    own = study.baselines.seeds or study.seeds
    rows = [(name, own) for name in BASELINES]
    return rows + [(strategy.row, strategy.seeds or study.seeds) for strategy in study.strategies]


def _notes(result: PartitionResults, stale: Mapping[str, Sequence[str]]) -> list[str]:
    """What a reader of the tables has to know in addition to them; stale: seeds by row."""
    notes = []
    for row in result.rows:
        if not row.complete(row.expected):
            notes.append(f"{row.name}: {row.missing(row.expected)}.")
    if stale:
        # the base has no seed, and counts once for each
        told = [name if name == "base" else f"{name} (seed {', '.join(of)})" for name, of in stale.items()]
        notes.append(
            f"Made with other code or other tuned values than a new run would have: {'; '.join(told)}."
        )
    notes += [
        f"{one} and {other} ended with the same weights under every seed." for one, other in _equal(result)
    ]
    everything = [record for row in result.rows for record in row.records.values()]
    commits = {record.commit for record in everything}
    if len(commits) > 1:
        notes.append(f"The runs come from {len(commits)} commits; each record names its own.")
    dirty = sum(bool(record.dirty) for record in everything)
    if dirty:
        notes.append(f"{dirty} of {len(everything)} runs had changes that were not committed.")
    machines = {repr(sorted(record.machine.items())) for record in everything}
    if len(machines) > 1:
        notes.append(f"The runs come from {len(machines)} kinds of machine: their seconds do not compare.")
    for package in sorted({name for record in everything for name in record.versions}):
        versions = {str(record.versions.get(package)) for record in everything}
        if len(versions) > 1:
            notes.append(f"The runs used different versions of {package}: {', '.join(sorted(versions))}.")
    return notes


def _equal(result: PartitionResults) -> list[tuple[str, str]]:
    """Pairs of rows with the same results: equal by construction, or a mistake."""
    ends: dict[tuple[Any, ...], str] = {}
    pairs = []
    for row in result.rows:
        if row.baseline or not row.complete(row.expected):
            continue
        last = [record.evaluations[-1] for record in row.records.values()]
        hashes = [record.shared_hash for record in row.records.values()]
        key = (row.expected, *hashes, *(tuple(each["device"] or ()) for each in last))
        if key in ends:
            pairs.append((ends[key], row.name))
        ends.setdefault(key, row.name)
    return pairs
