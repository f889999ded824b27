"""Log of the shared steps that a device ran for groups, which the other members were spared."""

from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict, NonNegativeInt, with_config

from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class SharedWork:
    """The shared steps of one group that this device ran.

    Attributes:
        task_id: Its own task in the group.
        steps: Number of shared steps.
    """

    task_id: str
    steps: NonNegativeInt


class SharedWorkLog:
    """The log, with one file per order, so that nothing has to be read before an entry is added."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.root / "shared_work"

    def add(self, work: SharedWork) -> None:
        """Record shared steps that were run."""
        self._home.folder(self._folder)
        number = len(list(self._files()))
        # another process may have taken the number
        while not self._home.write_new_json(self._folder / f"{number:06d}.json", asdict(work)):
            number += 1

    def readable(self) -> tuple[list[SharedWork], list[Path]]:
        """Return every entry that can be read, and the files of those that cannot."""
        found, damaged = [], []
        for path in sorted(self._files()):
            try:
                found.append(self._home.read(path, SharedWork))
            except (OSError, DamagedFile):
                damaged.append(path)
        return found, damaged

    def _files(self) -> list[Path]:
        return list(self._folder.glob("[0-9]*.json"))
