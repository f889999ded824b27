"""The folder that a command fills anew each time: what was there comes back when the command fails."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedaigc.errors import UserError


@contextmanager
def fresh_folder(output: Path, marker: str) -> Iterator[None]:
    """`output` is empty but for the file `marker` inside, and keeps what is written when nothing is raised.

    Else it holds again what it held before. Only a folder with the marker is ever replaced: one with homes
    alone may hold a user's own images. A process that is killed leaves the earlier content beside the folder,
    where the next one finds it. Raises UserError when the folder holds anything else or cannot be made.
    """
    kept = output.with_name(f".{output.name}.before")
    try:
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is a file: give a folder with --output")
        if output.is_dir() and any(output.iterdir()):
            if not (output / marker).is_file():
                raise UserError(f"{output} holds something else: give another folder with --output")
            if kept.exists():  # of a process that was killed: what it left in `output` is not whole
                shutil.rmtree(output)
            else:
                output.rename(kept)
        output.mkdir(parents=True, exist_ok=True)
        (output / marker).touch()
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from None
    try:
        yield
    except BaseException:
        if kept.exists():
            shutil.rmtree(output, ignore_errors=True)
            kept.rename(output)
        raise
    shutil.rmtree(kept, ignore_errors=True)
