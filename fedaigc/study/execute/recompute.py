"""`fedaigc compare --recompute`: compute recorded runs again and compare them with their records."""

import shutil
from collections.abc import Mapping

from rich.console import Console

from fedaigc.counting import counted
from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng
from fedaigc.study.design.planned_runs import Plan, Prepared
from fedaigc.study.design.runs import RunSpec
from fedaigc.study.execute.display import Bars
from fedaigc.study.execute.estimate import told
from fedaigc.study.execute.scheduler import run_all
from fedaigc.study.results.records import StudyRecord, by_hash, read_records, recorded

# the computed part of a record; times, machine and versions may differ
_COMPUTED = ("status", "base", "clients", "evaluations", "shared_hash")


def recompute(console: Console, prepared: Prepared, plan: Plan, count: int, seed: int) -> int:
    """Compute recorded runs again, of as many rows as possible.

    The new records are written into the study's work folder, and removed if they are identical.

    Args:
        console: The terminal.
        prepared: The study.
        plan: The known runs of the study.
        count: Number of runs to compute.
        seed: Seed of the draw of the runs.

    Returns:
        0 if all runs are identical bit for bit, otherwise 1.

    Raises:
        UserError: Fewer than `count` runs are recorded.
    """
    before = by_hash(read_records(prepared.study.records_folder))
    chosen = _drawn([run for run in plan.runs if recorded(before, run)], count, seed)
    folder = prepared.study.work / "recomputed"
    shutil.rmtree(folder, ignore_errors=True)
    study = prepared.study.model_copy(update={"output": folder, "records": folder / "records"})
    seconds = {run.hash: before[run.hash].seconds or 0.0 for run in chosen}
    console.print(
        f"computing {count} of {len(before)} recorded runs again; they took {told(sum(seconds.values()))}"
    )
    with Bars(console, study, seconds) as bars:

        def planned(found: Mapping[str, StudyRecord]) -> list[RunSpec]:
            bars.planned(Plan(runs=chosen), found)
            return chosen

        outcome = run_all(study, planned, bars)
    after = by_hash(read_records(study.records_folder))
    same = 0
    for run in chosen:
        if run.hash not in after or run.id in outcome.failed:
            console.print(f"not computed  {run.id}  ({run.label})", markup=False)
            continue
        different = differences(before[run.hash], after[run.hash])
        same += not different
        console.print(f"{'differs' if different else 'same':<13} {run.id}  ({run.label})", markup=False)
        for line in different:
            console.print(f"              {line}", markup=False)
    console.print(f"{same} of {counted(count, 'run')} reproduce their records bit for bit")
    if same == count:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"new records: {study.records_folder}")
    return 0 if same == count else 1


def differences(before: StudyRecord, after: StudyRecord) -> list[str]:
    """Return what two records of one run computed differently, and what may explain it.

    The list is empty if all computed values are equal. Otherwise it also names the versions and properties of the
    machine that differ.
    """
    found = [f"{name} differs" for name in _COMPUTED if getattr(before, name) != getattr(after, name)]
    if not found:
        return []
    for name in ("versions", "machine"):
        old, new = getattr(before, name), getattr(after, name)
        found += [
            f"{name}: {key} was {old.get(key)}, is {new.get(key)}"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
    return found


def _drawn(runs: list[RunSpec], count: int, seed: int) -> list[RunSpec]:
    """Draw one run of each row, then a second of each, until there are `count`."""
    if count > len(runs):
        raise UserError(f"{counted(len(runs), 'run')} recorded: cannot compute {count} of them again")
    random = numpy_rng(seed, "recompute")
    rows: dict[str, list[RunSpec]] = {}
    for index in random.permutation(len(runs)):
        rows.setdefault(runs[index].label, []).append(runs[index])
    turns = [run for turn in range(len(runs)) for row in rows.values() for run in row[turn : turn + 1]]
    return turns[:count]
