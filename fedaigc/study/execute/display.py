"""The terminal display of a session of `fedaigc compare`."""

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedaigc.study.design.config import StudyConfig
from fedaigc.study.design.planned_runs import Plan
from fedaigc.study.execute.estimate import told
from fedaigc.study.results.records import StudyRecord, recorded


class Bars:
    """The display of a session: a bar for all runs, with the time left, and a bar for each run in progress.

    Where the output is no terminal, there are no bars, but a line whenever a run has ended.

    Args:
        console: The terminal.
        study: The study.
        seconds: The estimated seconds of each run that is left, by its hash.
    """

    def __init__(self, console: Console, study: StudyConfig, seconds: dict[str, float]) -> None:
        self._study, self._seconds = study, seconds
        self._console = console
        self._left = sum(seconds.values())
        self._total = self._left
        self._began = time.monotonic()
        columns = (
            TextColumn("{task.description:<52}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
        )
        # rich takes a file for a terminal if a variable such as FORCE_COLOR says so
        self._plain = not console.is_jupyter and (not sys.stdout.isatty() or console.is_dumb_terminal)
        self._told = -1
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console, disable=self._plain)
        self._all = self._progress.add_task("runs", total=None, text="")
        self._running: dict[str, TaskID] = {}
        self._hashes: dict[str, str] = {}

    def planned(self, plan: Plan, records: Mapping[str, StudyRecord]) -> None:
        """Update what is left, from the known runs and the records by hash."""
        runs = (*plan.runs, *plan.later)
        usual = self._total / max(1, len(self._seconds))
        self._left = sum(self._seconds.get(run.hash, usual) for run in runs if not recorded(records, run))
        self._count = len(runs)
        self._hashes = {run.id: run.hash for run in plan.runs}

    def line(self, text: str) -> None:
        """Print a line that stays on the terminal."""
        self._console.print(text, markup=False)
        self._console.file.flush()

    def update(self, done: int, running: Mapping[str, tuple[str, float]]) -> None:
        """Update the bars.

        Args:
            done: Number of runs that are done.
            running: For each run in progress, by id, what it computes and the share that is done.
        """
        begun = sum(
            share * self._seconds.get(self._hashes.get(id, ""), 0.0) for id, (_, share) in running.items()
        )
        left = max(0.0, self._left - begun)
        computed, passed = self._total - left, time.monotonic() - self._began
        # the pace so far; the estimate as long as little is done
        pace = passed / computed if computed > 0.1 * self._total else 1 / self._study.workers
        text = f"{done} of {self._count}, {told(left * pace)} left"
        if self._plain:
            if done != self._told:
                self._told = done
                self.line(f"runs: {text}")
            return
        self._progress.update(self._all, total=self._count, completed=done, text=text)
        for id in self._running.keys() - running.keys():
            self._progress.remove_task(self._running.pop(id))
        for id, (label, share) in running.items():
            if id not in self._running:
                self._running[id] = self._progress.add_task(f"  {id}", total=1.0, text=label)
            self._progress.update(self._running[id], completed=share, text=label)

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
