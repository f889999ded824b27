"""Options of the commands that read pictures, their progress, and what reading took."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedaigc.data.pictures.reading import Reading, Tally
    from fedaigc.device.add_pictures import OnPicture

_EVERY = 100


class SubFolderUse(StrEnum):
    """What to do with the sub-folders of a folder of pictures."""

    REFUSE = "refuse"
    READ = "read"
    CLASSES = "classes"


StoredSize = Annotated[
    int,
    typer.Option(
        min=0,
        help="Short side in pixels to which larger pictures are made smaller: at least that of the model. 0: never.",
    ),
]
Background = Annotated[
    str, typer.Option(help='Colour behind transparent pictures: a name such as "white", or "#rrggbb".')
]
SkipBroken = Annotated[
    bool,
    typer.Option(
        "--skip-broken", help="Leave out what cannot be read or has no caption, and say how much that was."
    ),
]
SubFoldersOption = Annotated[
    SubFolderUse,
    typer.Option(
        help="Pictures in sub-folders: refuse them, read them, or read them with the name of the sub-folder as label, "
        "and as caption where there is no other."
    ),
]


@contextmanager
def picture_progress() -> Iterator["OnPicture"]:
    """Show how many pictures were read: a bar on a terminal, otherwise a line for every hundred.

    Yields:
        The callback for each picture.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield _tell_line
        return
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("pictures", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def show_tally(tally: "Tally", reading: "Reading") -> None:
    """Print what reading pictures took."""
    for line in tally.lines(reading):
        typer.echo(f"  {line}")


def _tell_line(done: int, total: int | None) -> None:
    if not done % _EVERY:
        typer.echo(f"pictures: {done}" + (f" of {total}" if total is not None else ""), err=True)
