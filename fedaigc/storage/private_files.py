"""What fedaigc writes is its user's alone: files of mode 0600 in folders of 0700, the one place that decides.

Processes set it once for all that they and their children write (`only_for_this_user`), functions that a
notebook calls for as long as they work (`private_files`). A folder that was there keeps its mode.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700
# the bits that new files and folders do not get
_OTHERS: Final = 0o077


def only_for_this_user() -> None:
    """From now on, what this process and those that it starts write is for their user alone."""
    os.umask(_OTHERS)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """The same inside; what the process had set holds again afterwards."""
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def close_files(folder: Path, *patterns: str) -> None:
    """Close the files in a folder whose names fit: those that were there before, and will be written on."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_file() and not path.is_symlink():
                path.chmod(PRIVATE_FILE)


def close_tree(folder: Path) -> None:
    """Close a folder of fedaigc's own making, and all that it holds."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE)


def private_folder(path: Path) -> Path:
    """Make a folder and its missing parents, for this user alone; the folder's own mode too where it exists.

    For folders of fedaigc's own making. What a user names and has made is not closed: `private_files`.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        # the mode of mkdir passes through the umask only to lose bits
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    path.chmod(PRIVATE_FOLDER)
    return path
