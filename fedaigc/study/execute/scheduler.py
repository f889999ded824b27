"""Schedules the workers of a study: one process per run, and an orderly end."""

import hashlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from fedaigc.federation.runtime.environment import child_environment, python_command
from fedaigc.storage.atomic_file import read_json, write_json
from fedaigc.study.design.config import StudyConfig
from fedaigc.study.design.runs import RunSpec
from fedaigc.study.execute.compute import run_folder
from fedaigc.study.execute.worker import LOG, PROGRESS
from fedaigc.study.results.records import StudyRecord, by_hash, read_records, recorded, write_record

_POLL_S = 0.2
_GRACE_S = 5.0
Records = Mapping[str, StudyRecord]


@runtime_checkable
class Display(Protocol):
    """Where the progress of the runs is reported."""

    def line(self, text: str) -> None:
        """Print a line that stays."""

    def update(self, done: int, running: Mapping[str, tuple[str, float]]) -> None:
        """Report progress.

        Args:
            done: Number of runs that are done.
            running: For each run in progress, by id, what it computes and the share that is done.
        """


@dataclass
class Outcome:
    """How a session ended.

    Attributes:
        finished: Number of runs that are done, including diverged ones.
        failed: The error of each run that failed, by its id.
        stopped: Whether a signal ended the session with runs left over.
    """

    finished: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


@dataclass
class _Running:
    run: RunSpec
    process: "subprocess.Popen[bytes]"
    began: float


def run_all(
    study: StudyConfig, plan: Callable[[Records], list[RunSpec]], display: Display, *, verbose: bool = False
) -> Outcome:
    """Run what is not recorded, `study.workers` at a time, until nothing is left or a signal arrives.

    A run that fails is recorded as failed and the others continue. The next command tries it again, this one does
    not.

    Args:
        study: The study.
        plan: Returns the runs that are known, given the records; called again whenever a run ends.
        display: Where progress is reported.
        verbose: Whether to report the log of each run that ends, and the size and the hash of its record.
    """
    outcome, running = Outcome(), dict[str, _Running]()
    with _stop_signals() as stopped:
        try:
            done, waiting = _standing(study, plan, running, outcome)
            while not stopped():
                ended = [each for each in running.values() if each.process.poll() is not None]
                for each in ended:
                    del running[each.run.hash]
                    _note(study, each, outcome, display)
                    if verbose:
                        _tell_files(study, each, display)
                if ended:
                    done, waiting = _standing(study, plan, running, outcome)
                if not waiting and not running:
                    return outcome
                while waiting and len(running) < study.workers:
                    run = waiting.pop(0)
                    running[run.hash] = _Running(run, start(study, run), time.monotonic())
                display.update(done, {each.run.id: _at(study, each) for each in running.values()})
                time.sleep(_POLL_S)
            outcome.stopped = True
            return outcome
        finally:
            end(each.process for each in running.values())


def _standing(
    study: StudyConfig,
    plan: Callable[[Records], list[RunSpec]],
    running: Mapping[str, _Running],
    outcome: Outcome,
) -> tuple[int, list[RunSpec]]:
    """The number of known runs that are recorded, and the runs that wait for a worker; too slow for each poll."""
    records = _records(study)
    runs = plan(records)
    waiting = [
        run
        for run in runs
        if not recorded(records, run) and run.id not in outcome.failed and run.hash not in running
    ]
    return sum(recorded(records, run) for run in runs), _different(waiting)


def start(study: StudyConfig, run: RunSpec) -> "subprocess.Popen[bytes]":
    """Start the process of a run."""
    folder = run_folder(study.work, run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRESS).unlink(missing_ok=True)
    job = {
        "run": run.model_dump(mode="json"),
        "work": str(study.work),
        "records": str(study.records_folder),
    }
    write_json(folder / "job.json", job)
    return start_worker(folder / "job.json", folder / LOG)


def start_worker(job: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start a process for a job file; it ends when this process ends, for whatever cause."""
    # results repeat at equal numbers of threads only, and single-threaded processes share the cores best
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    with log.open("ab") as output:
        return subprocess.Popen(
            [*python_command("fedaigc.study.execute.worker"), str(job)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in a terminal reaches its whole process group: only this process handles it
            start_new_session=True,
            env={**child_environment(), **one, "TOKENIZERS_PARALLELISM": "false"},
        )


def end(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """Stop processes, gently first; their work up to the last complete round is kept."""
    held = list(processes)
    for process in held:
        process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for process in held:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _note(study: StudyConfig, ended: _Running, outcome: Outcome, display: Display) -> None:
    """Count a run that ended, and record it if it could not do so itself."""
    run, code = ended.run, ended.process.returncode
    record = _records(study).get(run.hash)
    if record is None or (not record.is_done and code < 0):
        cause = f"signal {-code}" if code < 0 else f"status {code}"
        error = f"the process ended with {cause}; the same command goes on after its last whole round"
        write_record(study.records_folder, run, "failed", error=error, evaluations=[], clients=[])
        record = _records(study)[run.hash]
    seconds = time.monotonic() - ended.began
    if record.is_done:
        outcome.finished += 1
        loss = _told_losses(record) if record.status == "finished" else "diverged"
        display.line(f"{run.id}: {loss}, {seconds:.0f} s")
    else:
        outcome.failed[run.id] = record.error or ""
        log = run_folder(study.work, run) / LOG
        display.line(f"{run.id}: failed after {seconds:.0f} s: {record.error}\n  log: {log}")


def _tell_files(study: StudyConfig, ended: _Running, display: Display) -> None:
    log = run_folder(study.work, ended.run) / LOG
    if log.is_file():
        display.line(log.read_text(encoding="utf-8", errors="replace").rstrip())
    record = study.records_folder / f"{ended.run.id}.json"
    data = record.read_bytes()
    display.line(f"  {record}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


def _told_losses(record: StudyRecord) -> str:
    """Return the final loss of a run, and those of the evaluations before it by round."""
    mode = record.scored_mode
    earlier = []
    for at, evaluation in enumerate(record.evaluations[:-1]):
        losses = record.losses(mode, at=at)
        if losses and "round" in evaluation:
            earlier.append(f"round {evaluation['round']} {sum(losses.values()) / len(losses):.5f}")
    before = f" ({', '.join(earlier)})" if earlier else ""
    return f"loss {record.final_loss:.5f}{before}"


def _records(study: StudyConfig) -> dict[str, StudyRecord]:
    return by_hash(read_records(study.records_folder))


def _different(runs: list[RunSpec]) -> list[RunSpec]:
    """Runs with the same result are computed once, whatever their names."""
    found: dict[str, RunSpec] = {}
    for run in runs:
        found.setdefault(run.hash, run)
    return list(found.values())


def _at(study: StudyConfig, each: _Running) -> tuple[str, float]:
    found = read_json(run_folder(study.work, each.run) / PROGRESS) or {"label": "starting", "share": 0.0}
    return found["label"], found["share"]


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM request an end without interrupting a write."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
