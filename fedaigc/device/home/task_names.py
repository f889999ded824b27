"""Names for tasks of which nothing is disclosed: new ones whenever a server asks which tasks wait.

A stable id would link the replies of such a device over polls, runs and servers. The names are random and
returned in random order (sorted by name). The home keeps the names of the latest polls, so that an order that
follows is understood, also after a restart. An order with an older name is refused like one for an unknown
task; the task is offered again at the next poll.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedaigc.bounds import MAX_POLLS_KEPT
from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile
from fedaigc.rng import derived_seed

FILE_NAME = "task_names.json"


@dataclass(frozen=True)
class _Table:
    """The number of polls so far, and the task id of each name of the latest ones."""

    polls: int
    names: list[dict[str, str]]


class TaskNames:
    """The names of the latest polls of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def _path(self) -> Path:
        return self._home.root / FILE_NAME

    def fresh(self, task_ids: Sequence[str], *, repeatable: bool = False) -> list[str]:
        """Return new names (16 hexadecimal digits) for tasks, in an order that does not reveal theirs.

        The names are on disk when this method returns.

        Args:
            task_ids: Ids of the tasks.
            repeatable: Whether to derive the names from the home's seed and the number of the poll, for
                simulations. Otherwise the operating system draws them.
        """
        number, polls = self._read()
        if repeatable:
            seed = self._home.seed
            names = [f"{derived_seed(seed, 'name', number, task_id):016x}" for task_id in task_ids]
        else:
            names = [secrets.token_hex(8) for _ in task_ids]
        if task_ids:
            polls = [*polls, dict(zip(names, task_ids, strict=True))][-MAX_POLLS_KEPT:]
            self._home.write_json(self._path, {"polls": number + 1, "names": polls})
        return sorted(names)

    def task_of(self, name: str) -> str | None:
        """Return the id of the task that had this name in one of the latest polls; None if there was none."""
        for poll in reversed(self._read()[1]):
            if name in poll:
                return poll[name]
        return None

    def _read(self) -> tuple[int, list[dict[str, str]]]:
        try:
            table = self._home.read(self._path, _Table)
        # without the table, all names are unknown, and the next poll gives new ones
        except (OSError, DamagedFile):
            return 0, []
        return table.polls, table.names
