"""Names for tasks of which nothing is disclosed: new ones whenever a server asks what waits.

A stable id would link what such a device says over polls, runs and servers. The names are random and come in
random order (sorted by name), and the home keeps those of the latest polls, so that an order that follows is
understood, also after a restart. An order by an older name is refused as one for an unknown task; the task is
offered again at the next poll.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

from fedaigc.bounds import MAX_POLLS_KEPT
from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile
from fedaigc.rng import derived_seed

FILE_NAME = "task_names.json"


class TaskNames:
    """The names of the latest polls of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def _path(self) -> Path:
        return self._home.root / FILE_NAME

    def fresh(self, task_ids: Sequence[str], *, repeatable: bool = False) -> list[str]:
        """New names (16 hexadecimal digits) for these tasks, in an order that does not tell theirs.

        The names are on disk when this returns. repeatable: derive them from the home's seed and the number
        of the poll, for simulations; else the operating system draws them.
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
        """The id of the task that had this name in one of the latest polls; None if there was none."""
        for poll in reversed(self._read()[1]):
            if name in poll:
                return poll[name]
        return None

    def _read(self) -> tuple[int, list[dict[str, str]]]:
        try:
            table = self._home.read_json(self._path)
            polls = [{str(name): str(task_id) for name, task_id in poll.items()} for poll in table["names"]]
            return int(table["polls"]), polls
        # without the table the names are unknown, and the next poll gives others
        except (OSError, LookupError, TypeError, ValueError, AttributeError, DamagedFile):
            return 0, []
