"""A log of a home with one file a task or prompt, of which each has the latest state."""

from contextlib import AbstractContextManager
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import Task
from fedaigc.errors import DamagedFile

Entry = TypeVar("Entry")


class TaskLog(Generic[Entry]):
    """The files of one folder of a home.

    Args:
        home: The home.
        name: Name of the folder, and of the lock of its changes.
        kind: Class of the entries: a dataclass whose `time` has the Unix seconds of the latest change.
    """

    def __init__(self, home: Home, name: str, kind: type[Entry]) -> None:
        self._home, self._name, self._kind = home, name, kind
        self._folder = home.root / name

    def entries(self) -> list[Entry]:
        """Return what can be read, oldest change first."""
        found = []
        for path in self._folder.glob("*.json"):
            try:
                found.append(self._home.read(path, self._kind))
            except (OSError, DamagedFile):
                continue
        return sorted(found, key=attrgetter("time"))

    def _changing(self) -> AbstractContextManager[None]:
        """Return the context of a change, which another process waits for."""
        return self._home.changing(self._name)

    def _of(self, task: Task) -> Entry | None:
        """Return what is known of a task; DamagedFile for a damaged file, since nothing is certain then."""
        path = self._path(task)
        return self._home.read(path, self._kind) if path.exists() else None

    def _write(self, task: Task, entry: Entry) -> None:
        value: Any = entry
        self._home.folder(self._folder)
        self._home.write_json(self._path(task), asdict(value))

    def _path(self, task: Task) -> Path:
        return self._folder / f"{task.task_id}.json"
