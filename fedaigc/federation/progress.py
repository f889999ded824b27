"""How far a run is, as its server tells it: to a caller in the same process, or by lines of Flower's log."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from fedaigc.validation import typed_json

_MARK = "fedaigc progress: "


@dataclass(frozen=True)
class Stage:
    """A part of a run in which replies of devices are due. round: of a training round, counted from 1."""

    label: str
    round: int | None = None


@dataclass(frozen=True)
class Progress:
    """Of the replies that are due in this stage, how many are in."""

    stage: Stage
    done: int
    total: int

    def to_line(self) -> str:
        """A line for a log that another process reads."""
        return f"{_MARK}{json.dumps(asdict(self))}"

    @classmethod
    def from_line(cls, line: str) -> "Progress | None":
        """What `to_line` wrote, wherever it stands in the line; None for any other line."""
        _, mark, text = line.partition(_MARK)
        if not mark:
            return None
        return typed_json(cls, text)


OnProgress = Callable[[Progress], None]
