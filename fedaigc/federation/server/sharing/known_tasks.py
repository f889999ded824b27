"""What a server knows of the tasks that wait, as far as planners need it.

A task's prompt is unknown, but there are public prompts of which the same would have been disclosed: the *guesses*. In
the space of the sharing distance the task lies at the one nearest to their mean, give or take the median distance of
all to it (`slack`). How long it may share on public prompts is expected to be the median over its guesses. What its
device takes in the end is for the device to say.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from fedaigc.planning.curve import DamageCurve
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.signature import Signature

MOST_GUESSES = 64
Number = TypeVar("Number", int, float)

Way = tuple["Common", ...]
"""For each hand-off, the public prompt of the steps that end there."""


@dataclass(frozen=True)
class Common:
    """A public prompt that shared steps may run on.

    Attributes:
        prompt: The prompt.
        node: The node of an atlas whose caption it is; None: it is no caption.
        vector: Its vector in the space of the sharing distance.
        signature: The prompt as concepts, where it is made of them.
    """

    prompt: str
    node: int | None
    vector: Float[np.ndarray, " d"] = field(compare=False, repr=False)
    signature: Signature | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Rules:
    """By what devices decide how long they share.

    Attributes:
        calibration: What sharing costs.
        tolerance: The largest damage of a picture.
        risk: The largest share of pictures beyond it.
        ladder: The hand-offs, ascending.
        least: What a task takes at least on a prompt that fits it at all.
    """

    calibration: Calibration
    tolerance: float
    risk: float
    ladder: tuple[int, ...]
    least: int

    @property
    def curve(self) -> DamageCurve:
        """The curve by which a planner decides as devices do: its tolerance is `risk`."""
        return DamageCurve.of_risk(self.calibration, self.tolerance, self.ladder)


class KnownTasks(ABC):
    """Tasks of which something was disclosed, in the order of their ids.

    Attributes:
        tasks: Their ids.
        rules: By what devices decide.

    Args:
        tasks: Task id -> a key of what was disclosed: equal for equal signatures.
        rules: By what devices decide.
    """

    def __init__(self, tasks: Mapping[str, Hashable], rules: Rules) -> None:
        self.tasks = tuple(sorted(tasks))
        self.rules = rules
        self._keys = [tasks[task] for task in self.tasks]
        self._known: dict[tuple[Hashable, Way], int] = {}
        self._vectors: dict[Hashable, Float[np.ndarray, "guesses d"]] = {}

    @abstractmethod
    def guessed(self, key: Hashable) -> Float[np.ndarray, "guesses d"]:
        """Return the vectors of the public prompts of which the same would have been disclosed, at least one."""

    @abstractmethod
    def families(self) -> list[list[int]]:
        """Return the rows of tasks that may share with each other, each family by itself."""

    @abstractmethod
    def divided(
        self, rows: Sequence[int], ways: Callable[[int], Way], rungs: Sequence[int]
    ) -> list[tuple[Common, list[int]]]:
        """Divide tasks that a planner put together by the public prompts on which they save the most steps.

        Tasks that no prompt holds together with another one are left out.

        Args:
            rows: Their rows.
            ways: What a task's steps ran on so far.
            rungs: Numbers of the hand-offs that they shall reach, from the next one.
        """

    def saved(
        self, rows: Sequence[int], ways: Callable[[int], Way], rungs: Sequence[int], common: Common
    ) -> tuple[int, list[int]]:
        """Return how many steps tasks save on a public prompt, and the rows of those that share at all.

        Args:
            rows: The tasks.
            ways: What their steps ran on so far.
            rungs: As for `divided`.
            common: The prompt.
        """
        ladder = self.rules.ladder
        begun = ladder[rungs[0] - 1] if rungs[0] else 0
        taken = [self.last(row, (*ways(row), *(common,) * len(rungs))) - begun for row in rows]
        inside = [row for row, steps in zip(rows, taken, strict=True) if steps > 0]
        return sum(max(0, steps) for steps in taken) - max(0, *taken), inside

    def guesses(self, row: int) -> Float[np.ndarray, "guesses d"]:
        """Return the guesses of a task; at most `MOST_GUESSES`, evenly chosen."""
        key = self._keys[row]
        if key not in self._vectors:
            found = self.guessed(key)
            self._vectors[key] = found[:: -(-len(found) // MOST_GUESSES)]
        return self._vectors[key]

    def points(self, rows: Sequence[int]) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
        """Return where tasks lie, and their slack."""
        places, away = [], []
        for row in rows:
            guesses = self.guesses(row)
            middle = guesses[np.linalg.norm(guesses - guesses.mean(0, dtype=float), axis=1).argmin()]
            places.append(middle)
            away.append(_middle(np.linalg.norm(guesses - middle, axis=1).tolist()))
        return np.array(places, dtype=float), np.array(away)

    def last(self, row: int, way: Way) -> int:
        """Return the last hand-off that a task is expected to take along a way; 0: none."""
        key = self._keys[row], way
        if key not in self._known:
            rules = self.rules
            ladder = rules.ladder[: len(way)]
            apart = np.array([np.linalg.norm(self.guesses(row) - each.vector, axis=1) for each in way])
            taken = [
                rules.calibration.last_handoff_along(column, rules.tolerance, ladder, risk=rules.risk)
                for column in apart.T.tolist()
            ]
            self._known[key] = max(rules.least, _middle(taken))
        return self._known[key]


def _middle(values: Sequence[Number]) -> Number:
    """Return the median; of an even number of values the lower one, so that it is one of them."""
    return sorted(values)[(len(values) - 1) // 2]
