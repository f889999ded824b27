"""Progress bars of a run, one for each stage."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedaigc.federation.progress import OnProgress
from fedaigc.federation.progress import Progress as RunProgress


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Show a progress bar for each stage of a run.

    Yields:
        The callback for the progress of the run.
    """
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def update(told: RunProgress) -> None:
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
