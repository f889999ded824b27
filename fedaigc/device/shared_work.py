"""What a device ran for groups: their shared steps, which other members were spared."""

from dataclasses import asdict, dataclass
from pathlib import Path

from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile


@dataclass(frozen=True)
class SharedWork:
    """The shared steps of one group that this device ran: its own task in the group, and how many."""

    task_id: str
    steps: int


class SharedWorkLog:
    """One file an order, so that nothing has to be read before something can be added."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.root / "shared_work"

    def add(self, work: SharedWork) -> None:
        """Note steps that were run."""
        self._home.folder(self._folder)
        number = len(list(self._files()))
        # another process may have taken the number
        while not self._home.write_new_json(self._folder / f"{number:06d}.json", asdict(work)):
            number += 1

    def readable(self) -> tuple[list[SharedWork], list[Path]]:
        """Every note that can be read, and the files of those that cannot."""
        found, damaged = [], []
        for path in sorted(self._files()):
            try:
                work = SharedWork(**self._home.read_json(path))
            except (OSError, TypeError, DamagedFile):
                damaged.append(path)
                continue
            sound = type(work.steps) is int and work.steps >= 0
            (found.append(work) if sound else damaged.append(path))
        return found, damaged

    def _files(self) -> list[Path]:
        return list(self._folder.glob("[0-9]*.json"))
