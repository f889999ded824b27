"""Reports on runs for the command line: progress bars, and how a run ended."""

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
    """Show a progress bar for each stage of a run.

    Yields:
        The callback for the progress of the run.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def update(told: "RunProgress") -> None:
            label, done, total = told.stage.label, told.done, told.total
            # a repeated label (training of the next round) continues in the same bar
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
    """Print how a run ended, the privacy bound of its noise, and what was left out or refused.

    Args:
        output: Output folder of the run.
    """
    from fedaigc.federation.output.recorder import refusals
    from fedaigc.federation.output.records import read_record
    from fedaigc.strategy.accountant import told as dp_line

    record = read_record(output)
    typer.echo(f"{record.status}: {len(record.rounds)} rounds, record in {output}/record.json")
    if line := dp_line(record.dp):
        # a run whose noise gives no bound must not look protected
        missing = record.dp is not None and record.dp.epsilon is None
        typer.echo(f"warning: {line}" if missing else line, err=missing)
    told = refusals(record)
    for line in told:
        typer.echo(f"warning: {line}", err=True)
    if told:
        typer.echo("why, in full: errors.log in the home of the device", err=True)
