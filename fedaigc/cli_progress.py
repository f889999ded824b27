"""Progress bars of the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedaigc.federation.roster import Progress


@contextmanager
def progress_bars() -> "Iterator[Progress]":
    """A bar for each label; a callback takes (label, done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def update(label: str, done: int, total: int) -> None:
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
