"""The folder that a command fills from scratch; its previous content is restored if the command fails."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedaigc.errors import UserError
from fedaigc.storage.file_lock import locked_without_trace


@contextmanager
def fresh_folder(output: Path, marker: str) -> Iterator[None]:
    """Provide an empty folder `output`, and restore its previous content if an exception is raised.

    Inside the context the folder holds only the file `marker`. Only a folder with the marker is ever
    replaced: one with homes alone may hold a user's own images. If a process is killed, the previous content
    remains next to the folder, where the next process finds it.

    Args:
        output: Folder to fill.
        marker: Name of the file that marks folders that may be replaced.

    Raises:
        UserError: If the folder holds anything else, cannot be written, or another process fills it.
    """
    busy = f"another process fills {output}: wait for its end, or choose another folder with --output"
    with ExitStack() as held:
        try:
            held.enter_context(locked_without_trace(output.with_name(f".{output.name}.lock"), busy=busy))
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror or error}") from None
        yield from _filled(output, marker)


def _filled(output: Path, marker: str) -> Iterator[None]:
    kept = output.with_name(f".{output.name}.before")
    try:
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is a file: give a folder with --output")
        if output.is_dir() and any(output.iterdir()):
            if not (output / marker).is_file():
                raise UserError(f"{output} contains other files: choose another folder with --output")
            if kept.exists():  # a killed process left incomplete content in `output`
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
