"""What the command line tells of runs: progress bars, and how one ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fedaigc.federation.progress import OnProgress
    from fedaigc.federation.progress import Progress as RunProgress


@contextmanager
def progress_bars() -> "Iterator[OnProgress]":
    """A bar for each stage of a run."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def update(told: "RunProgress") -> None:
            label, done, total = told.stage.label, told.done, told.total
            # a label that starts anew (the next round's training) goes on in the same bar
            if label not in tasks:
                tasks[label] = (bars.add_task(label, total=total), 0)
            task, offset = tasks[label]
            bar = bars.tasks[task]
            if done + offset < bar.completed:
                offset = int(bar.completed)
                tasks[label] = (task, offset)
                bars.update(task, total=offset + total)
            bars.update(task, completed=offset + done)

        yield update


def tell_run(output: Path) -> None:
    """How the run of this output folder ended, what its noise is worth, and who was left out of what."""
    from fedaigc.federation.output.recorder import refusals
    from fedaigc.federation.output.records import read_record
    from fedaigc.strategy.accountant import told as dp_line

    record = read_record(output)
    typer.echo(f"{record.status}: {len(record.rounds)} rounds, record in {output}/record.json")
    if line := dp_line(record.dp):
        # a run whose noise bounds nothing must not look like one that is protected
        missing = record.dp is not None and record.dp.epsilon is None
        typer.echo(f"warning: {line}" if missing else line, err=missing)
    told = refusals(record)
    for line in told:
        typer.echo(f"warning: {line}", err=True)
    if told:
        typer.echo("why, in full: errors.log in the home of the device", err=True)
