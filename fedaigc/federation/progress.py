"""Progress of a run, which its server reports to a caller in the same process or in lines of Flower's log."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from fedaigc.validation import typed_json

_MARK = "fedaigc progress: "


@dataclass(frozen=True)
class Stage:
    """A part of a run in which the server waits for replies of devices.

    Attributes:
        label: Text that names the stage for the user.
        round: The number of the training round, from 1. None for other stages.
    """

    label: str
    round: int | None = None


def round_stage(number: int, count: int) -> Stage:
    """Return the stage of a training round."""
    return Stage(f"round {number} of {count}", number)


@dataclass(frozen=True)
class RoundEnd:
    """What a finished training round came to.

    Attributes:
        clients: Number of clients whose updates were used.
        losses: Mean of each loss over these clients, by name.
        seconds: Duration of the round.
    """

    clients: int
    losses: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Progress:
    """The number of replies that have arrived in a stage, and the number of expected ones.

    Attributes:
        stage: The stage.
        done: Number of replies that have arrived.
        total: Number of expected replies.
        ended: Of a training round that has just ended: its outcome. None before.
    """

    stage: Stage
    done: int
    total: int
    ended: RoundEnd | None = None

    def to_line(self) -> str:
        """Return a log line that another process can parse with `from_line`."""
        return f"{_MARK}{json.dumps(asdict(self))}"

    @classmethod
    def from_line(cls, line: str) -> "Progress | None":
        """Return the progress that a log line contains, possibly after other text, or None for any other line."""
        _, mark, text = line.partition(_MARK)
        if not mark:
            return None
        return typed_json(cls, text)


OnProgress = Callable[[Progress], None]
