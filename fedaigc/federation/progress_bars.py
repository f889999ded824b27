"""Progress of a run on a terminal: bars for what is going on, and a line for each finished round.

Where the output is no terminal (a file, a pipe, CI), there are lines only: one for each round, for each picture, and
for each other stage when it is complete.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedaigc.counting import counted
from fedaigc.federation.progress import OnProgress, RoundEnd
from fedaigc.federation.progress import Progress as RunProgress

# stages whose replies are pictures
PICTURES = ("own steps", "pictures for the report")


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Show the progress of a run on standard output.

    Yields:
        The callback for the progress of the run.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    # rich takes a file for a terminal if a variable such as FORCE_COLOR says so
    if console.is_jupyter or (sys.stdout.isatty() and not console.is_dumb_terminal):
        with _bars(console) as update:
            yield update
    else:
        yield _tell_line


def round_line(told: RunProgress, end: RoundEnd) -> str:
    """Return the line of a finished round: its clients, its losses and its duration."""
    name = told.stage.label
    losses = [f"{loss.replace('_', ' ')} {value:.6g}" for loss, value in sorted(end.losses.items())]
    parts = [f"{end.clients} of {counted(told.total, 'client')}", *losses, f"{end.seconds:.1f} s"]
    return f"{name}: {', '.join(parts)}"


def _tell_line(told: RunProgress) -> None:
    label = told.stage.label
    if told.ended is not None:
        line = round_line(told, told.ended)
    elif told.stage.round is None and (told.done == told.total or label in PICTURES):
        line = f"{label}: {told.done} of {told.total}"
    else:
        return
    print(line, flush=True)


@contextmanager
def _bars(console: Any) -> Iterator[OnProgress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, tuple[TaskID, int]] = {}

        def update(told: RunProgress) -> None:
            label, done, total = told.stage.label, told.done, told.total
            if told.ended is not None:
                # the line of the round takes the place of its bar
                if label in tasks:
                    bars.remove_task(tasks.pop(label)[0])
                    bars.refresh()
                console.print(round_line(told, told.ended), markup=False)
                return
            # a repeated label continues in the same bar
            if label not in tasks:
                tasks[label] = (bars.add_task(label, total=total), 0)
            task, offset = tasks[label]
            bar = next(each for each in bars.tasks if each.id == task)
            if done + offset < bar.completed:
                offset = int(bar.completed)
                tasks[label] = (task, offset)
                bars.update(task, total=offset + total)
            bars.update(task, completed=offset + done)

        yield update
