"""File modes: what fedaigc writes is private to its user, files with mode 0600 and folders with mode 0700.

This module alone decides the modes. Processes set them once for everything that they and their children write
(`only_for_this_user`). Functions that a notebook calls set them while they work (`private_files`). An
existing folder keeps its mode.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700
# permission bits that new files and folders do not get
_OTHERS: Final = 0o077


def only_for_this_user() -> None:
    """Make everything that this process and its children write from now on private to this user."""
    os.umask(_OTHERS)


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Make everything that is written in this context private to this user, and restore the umask."""
    before = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def close_files(folder: Path, *patterns: str) -> None:
    """Make the files of a folder that match `patterns` private to this user.

    It is meant for files that existed before and will be written again.
    """
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_file() and not path.is_symlink():
                path.chmod(PRIVATE_FILE)


def close_tree(folder: Path) -> None:
    """Make a folder of fedaigc's own making and its content private to this user."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE)


def private_folder(path: Path) -> Path:
    """Create a folder and its missing parents, private to this user.

    The mode of an existing folder changes as well. The function is meant for folders of fedaigc's own making.
    Folders that a user names and has created keep their mode: see `private_files`.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        # the umask can only remove bits from the mode of mkdir
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    path.chmod(PRIVATE_FOLDER)
    return path
