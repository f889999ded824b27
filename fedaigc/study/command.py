"""`fedaigc compare`: the time estimate, the runs that are missing, then tables, plots and the report."""

import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from fedaigc.counting import counted
from fedaigc.device.pool import read_pool
from fedaigc.errors import UserError
from fedaigc.storage.atomic_file import read_json, write_json
from fedaigc.storage.file_lock import locked
from fedaigc.strategy.registry import load_strategy
from fedaigc.study.design.config import StudyConfig
from fedaigc.study.design.own_data import StudyOwnData
from fedaigc.study.design.planned_runs import Plan, Prepared, make_plan, prepare
from fedaigc.study.design.runs import RunSpec
from fedaigc.study.execute.display import Bars
from fedaigc.study.execute.estimate import Measured, data_seconds, run_seconds, told
from fedaigc.study.execute.measures import Features, Measure, Metric, measure_runs, study_measures
from fedaigc.study.execute.recompute import recompute
from fedaigc.study.execute.scheduler import Outcome, end, run_all, start_worker
from fedaigc.study.results.load import read_results
from fedaigc.study.results.records import StudyRecord, by_hash, read_records, recorded
from fedaigc.study.results.report import write_report


def compare(
    study: StudyConfig,
    *,
    estimate_only: bool = False,
    list_only: bool = False,
    tables_only: bool = False,
    recompute_count: int = 0,
    recompute_seed: int = 0,
    verbose: bool = False,
    progress: bool = True,
    metrics: Mapping[str, Metric] | None = None,
    features: Features | None = None,
) -> int:
    """Run the part of a study that is not recorded yet, and write its report.

    Args:
        study: The configuration of the study.
        estimate_only: Print the estimated time only.
        list_only: Print the runs and their status only.
        tables_only: Write the report from the records only.
        recompute_count: Compute that number of recorded runs again and compare them, in place of new runs.
        recompute_seed: Seed of the draw of these runs.
        verbose: Print the log of each run that ends, and the size and the hash of its record.
        progress: Print lines and bars; without them warnings are Python's.
        metrics: Own measures of the pictures that runs draw; see `study_measures`.
        features: Own features for the distances of these pictures to real ones.

    Returns:
        The exit status: 0 if everything is done; 1 if runs failed, which are recorded as failed, or if a
        recomputed run differs from its record; 130 if a signal stopped the study.

    Raises:
        UserError: The configuration cannot work, or another process runs the same study.
    """
    console = Console(soft_wrap=True, highlight=False, quiet=not progress)
    prepared = prepare(study)
    records = by_hash(read_records(study.records_folder))
    plan = make_plan(prepared, records)
    if list_only:
        _list(console, plan, records)
        return 0
    if tables_only:
        console.print(f"report: {_summarize(prepared, [])}")
        return 0
    # before hours of training: the weights of a network may be missing
    measures = [] if estimate_only or recompute_count else study_measures(study, metrics, features)
    _warn_of_pictures(console, study.clients.data, measures)
    with ExitStack() as held:
        if not estimate_only:
            busy = f"another process is running this study in {study.work}: wait for it, or stop it"
            held.enter_context(locked(study.work / "lock", busy=busy))
        if recompute_count:
            return recompute(console, prepared, plan, recompute_count, recompute_seed)
        left = [run for run in (*plan.runs, *plan.later) if not recorded(records, run)]
        if not left and not estimate_only:
            console.print(f"all {len(plan.runs)} runs are recorded\nreport: {_summarize(prepared, measures)}")
            return 0
        _warn_of_trials(console, study)
        # where nobody sees the time left, nothing is measured for it
        seconds = dict.fromkeys((run.hash for run in left), 1.0)
        if progress or estimate_only:
            measured = _measure(study, plan)
            seconds = {run.hash: run_seconds(run, measured, personal=_personal(run)) for run in left}
            total = sum(seconds.values()) + data_seconds(left, measured)
            _tell(console, study, measured, left, total, len(plan.runs) + len(plan.later) - len(left))
        if estimate_only:
            return 0
        began = time.monotonic()
        with Bars(console, study, seconds) as bars:

            def planned(found: Mapping[str, StudyRecord]) -> list[RunSpec]:
                now = make_plan(prepared, found)
                bars.planned(now, found)
                return now.runs

            outcome = run_all(study, planned, bars, verbose=verbose)
        return _end(console, prepared, outcome, time.monotonic() - began, measures)


def _end(
    console: Console, prepared: Prepared, outcome: Outcome, seconds: float, measures: list[Measure]
) -> int:
    console.print(f"{counted(outcome.finished, 'run')} done in {told(seconds)}")
    if outcome.stopped:
        console.print(
            "stopped: run the same command again to continue; interrupted runs resume after their last complete round"
        )
        return 130
    console.print(f"report: {_summarize(prepared, measures)}")
    if outcome.failed:
        console.print(
            f"{counted(len(outcome.failed), 'run')} failed; run the same command again to retry them:"
        )
        for name, error in outcome.failed.items():
            console.print(f"  {name}: {error}", markup=False)
        return 1
    return 0


def _summarize(prepared: Prepared, measures: list[Measure]) -> Path:
    if measures:
        records = by_hash(read_records(prepared.study.records_folder))
        measure_runs(prepared, make_plan(prepared, records), records, measures)
    return write_report(prepared.study, read_results(prepared))


def _warn_of_pictures(console: Console, data: StudyOwnData | None, measures: list[Measure]) -> None:
    """Say what of own pictures was left out, stands there twice, or is read in part."""
    if data is None:
        return
    pool = read_pool(data)
    repeated, captions = pool.repeated(), [each[0] for each in pool.captions]
    lines = []
    if pool.skipped:
        lines.append(f"left out: {counted(len(pool.skipped), 'picture')}, e.g.: {pool.skipped[0]}")
    if repeated:
        lines.append(
            f"equal to another one: {counted(len(repeated), 'picture')}, e.g. {repeated[0]}: the same picture can "
            "be in training and test"
        )
    for measure in measures:
        if measure.cut is not None and (long := measure.cut(captions)):
            lines.append(
                f"longer than the {measure.names[0]} reads, and compared by their beginning: {len(long)} of "
                f"{counted(len(captions), 'caption')}, e.g. {captions[long[0]]!r:.60}"
            )
    for text in lines:
        _warn(console, text)


def _warn_of_trials(console: Console, study: StudyConfig) -> None:
    if study.tuned_shorter:
        _warn(
            console,
            f"tuned over fewer rounds than the {study.rounds.count} that are reported, which can choose values that "
            f"win early: {', '.join(study.tuned_shorter)}",
        )


def _warn(console: Console, text: str) -> None:
    if console.quiet:
        warnings.warn(text, stacklevel=2)
    else:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}")


def _list(console: Console, plan: Plan, records: Mapping[str, StudyRecord]) -> None:
    for run in plan.runs:
        status = records[run.hash].status if run.hash in records else "to run"
        console.print(f"{status:<9} {run.id}  ({run.label})", markup=False)
    for run in plan.later:
        name = f"{run.label}, {run.partition}, seed {run.seed}"
        console.print(f"{'later':<9} {name}: planned after its tuning", markup=False)
    done = sum(recorded(records, run) for run in plan.runs)
    console.print(f"{counted(len(plan.runs) + len(plan.later), 'run')}, {done} of them done")


def _measure(study: StudyConfig, plan: Plan) -> Measured:
    """Measure with as many processes at once as the study will have."""
    study.work.mkdir(parents=True, exist_ok=True)
    # two estimates of a study at once each have their own
    folder = Path(tempfile.mkdtemp(prefix="measure-", dir=study.work))
    run = next(run for run in (*plan.runs, *plan.later) if run.kind == "pooled")
    processes, results = [], []
    try:
        for number in range(study.workers):
            result = folder / f"result-{number}.json"
            result.unlink(missing_ok=True)
            write_json(
                folder / f"job-{number}.json", {"measure": str(result), "run": run.model_dump(mode="json")}
            )
            processes.append(start_worker(folder / f"job-{number}.json", folder / f"log-{number}.txt"))
            results.append(result)
        for process in processes:
            process.wait()
    finally:
        end(processes)
    found = [value for result in results if (value := read_json(result)) is not None]
    if len(found) < len(results):
        log = folder / f"log-{next(n for n, path in enumerate(results) if not path.exists())}.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no message"
        raise UserError(f"measuring a local step failed: {last}\n  log: {log}")
    shutil.rmtree(folder, ignore_errors=True)
    return Measured.mean(found)


def _tell(
    console: Console, study: StudyConfig, measured: Measured, left: list[RunSpec], total: float, done: int
) -> None:
    steps = sum(run.work_units for run in left)
    trials = sum(run.purpose == "trial" for run in left)
    console.print(
        f"measured with {study.workers} concurrent processes: a local step {measured.step_s:.3f} s, an "
        f"evaluation of a client {measured.evaluation_s:.2f} s, a picture {measured.image_s * 1e3:.0f} ms, "
        f"a start {measured.start_s:.0f} s"
    )
    extra = "" if study.tuning is None else ", plus extensions if an optimum is on the edge of its grid"
    console.print(
        f"{counted(len(left), 'run')} to do ({counted(trials, 'trial')}{extra}), {done} recorded; "
        f"{steps:.0f} local steps"
    )
    console.print(
        f"estimated time: {told(total)} for one process / {study.workers} workers = "
        f"[bold]{told(total / study.workers)}[/bold], without messages and aggregation"
    )


def _personal(run: RunSpec) -> bool:
    rounds = run.federation["rounds"]
    return run.kind == "strategy" and load_strategy(rounds["strategy"], rounds["options"]).traits.personal
