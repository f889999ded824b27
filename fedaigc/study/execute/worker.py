"""The process that computes one run: `python -m fedaigc.study.execute.worker JOB.json`.

It ends together with the process that started it: however that process dies, its end of the pipe to standard
input closes. If the worker itself dies at any moment, the run can continue after its last complete round.
"""

import argparse
import json
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from fedaigc.errors import Diverged, NotFinite, UserError
from fedaigc.storage.atomic_file import write_json
from fedaigc.storage.file_lock import locked

PROGRESS = "progress.json"
LOG = "log.txt"


def main(arguments: list[str] | None = None) -> int:
    """Compute the run or the measurement of a job file; the results are in the files that the job names.

    Returns:
        The exit status: 0 if the run is recorded as finished or diverged, 1 if it failed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--unwatched", action="store_true", help="continue after the end of standard input")
    given = parser.parse_args(arguments)
    if not given.unwatched:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    job: dict[str, Any] = json.loads(given.job.read_text(encoding="utf-8"))
    warnings.filterwarnings("default", category=RuntimeWarning)
    if "measure" in job:
        # imported here: torch and diffusers take seconds, which would delay the watch of the parent
        from fedaigc.study.execute.estimate import measure

        write_json(Path(job["measure"]), measure(job))
        return 0
    return _run(job)


def _run(job: dict[str, Any]) -> int:
    import torch

    from fedaigc.study.design.runs import RunSpec
    from fedaigc.study.execute.compute import Execution, clear, run_folder
    from fedaigc.study.results.records import write_record

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    run, work, records = RunSpec.model_validate(job["run"]), Path(job["work"]), Path(job["records"])
    folder = run_folder(work, run)
    folder.mkdir(parents=True, exist_ok=True)
    last = 0.0

    def report(label: str, share: float) -> None:
        nonlocal last
        if time.monotonic() - last > 0.2:
            last = time.monotonic()
            write_json(folder / PROGRESS, {"label": label, "share": share})

    # an orphaned worker of a killed command may still be ending
    with locked(folder / "lock"):
        try:
            values = Execution(run, work, report).compute()
        except Exception as error:
            traceback.print_exc()
            diverged = isinstance(error, Diverged | NotFinite)
            text = _without_paths(str(error) or type(error).__name__, work)
            if run.data.own is not None:
                text = text.replace(run.data.own.source, Path(run.data.own.source).name)
            kind = "error" if isinstance(error, UserError) else type(error).__name__
            status = "diverged" if diverged else "failed"
            write_record(records, run, status, error=text, error_kind=kind, evaluations=[], clients=[])
            if diverged and not run.keep_work:
                clear(run, work)
            return 0 if diverged else 1
        status = "finished" if _finite(values["evaluations"]) else "diverged"
        write_record(records, run, status, **_writable(values))
        if not run.keep_work:
            clear(run, work)
    return 0


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # unbuffered: a buffer's lock would block the exit
        pass
    os._exit(1)


def _finite(value: Any) -> bool:
    """Whether every number in a JSON value is finite."""
    if isinstance(value, dict):
        return all(_finite(each) for each in value.values())
    if isinstance(value, list):
        return all(_finite(each) for each in value)
    return not isinstance(value, float) or abs(value) < float("inf")


def _writable(value: Any) -> Any:
    """Replace infinities, which JSON does not have, by None; the status "diverged" states the reason."""
    if isinstance(value, dict):
        return {key: _writable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_writable(each) for each in value]
    return value if _finite(value) else None


def _without_paths(text: str, work: Path) -> str:
    """Remove local paths: records are committed and must not reveal where they were made."""
    return text.replace(str(work), "<work>").replace(str(Path.home()), "~")


if __name__ == "__main__":
    sys.exit(main())
