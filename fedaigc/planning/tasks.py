"""The tasks to plan, as columns: one row a task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fedaigc.errors import UserError


@dataclass(frozen=True, eq=False)
class Tasks:
    """Waiting tasks. Times are seconds of one clock.

    Attributes:
        ids: Id of each task, all different.
        vectors: Vector of each task in the space of the sharing distance. Where only a node of an atlas is known, the
            vector of the node's public caption.
        users: User of each task.
        arrivals: Time at which each task arrived.
        deadlines: Time by which each picture is due; infinite for none.
        classes: Device class of each task, an index into `Machines.devices`.
        slack: What is added to every distance of a task, for a vector that is only known to lie so near.
        batteries: Joules that the battery of each task's device holds; infinite for a device on mains. Of several tasks
            of one user the smallest counts.

    Raises:
        UserError: If the columns have different lengths, an id occurs twice, or a value is not usable.
    """

    ids: tuple[str, ...]
    vectors: Float[np.ndarray, "n d"]
    users: Int[np.ndarray, " n"]
    arrivals: Float[np.ndarray, " n"]
    deadlines: Float[np.ndarray, " n"]
    classes: Int[np.ndarray, " n"]
    slack: Float[np.ndarray, " n"]
    batteries: Float[np.ndarray, " n"]

    def __post_init__(self) -> None:
        number = len(self.ids)
        for name in ("vectors", "users", "arrivals", "deadlines", "classes", "slack", "batteries"):
            if len(getattr(self, name)) != number:
                raise UserError(
                    f"{name} has {len(getattr(self, name))} rows for {number} tasks: expected as many"
                )
        if len(set(self.ids)) != number:
            raise UserError("a task id occurs twice: expected different ids")
        if not (np.isfinite(self.vectors).all() and np.isfinite(self.arrivals).all()):
            raise UserError("vectors and arrivals must be finite")
        if np.isnan(self.deadlines).any() or not (self.slack >= 0).all() or not (self.classes >= 0).all():
            raise UserError("expected deadlines that are numbers, and slack and classes of at least 0")
        if not (self.batteries >= 0).all():
            raise UserError("the joules of a battery must be at least 0")

    @classmethod
    def of(
        cls,
        vectors: Float[np.ndarray, "n d"],
        *,
        ids: Sequence[str] | None = None,
        users: Int[np.ndarray, " n"] | None = None,
        arrivals: Float[np.ndarray, " n"] | None = None,
        deadlines: Float[np.ndarray, " n"] | None = None,
        classes: Int[np.ndarray, " n"] | None = None,
        slack: Float[np.ndarray, " n"] | None = None,
        batteries: Float[np.ndarray, " n"] | None = None,
    ) -> "Tasks":
        """Return tasks with defaults: numbers as ids, a user each, one class of devices on mains, exact vectors."""
        number = len(vectors)
        return cls(
            tuple(map(str, range(number))) if ids is None else tuple(ids),
            np.asarray(vectors, dtype=float),
            np.arange(number) if users is None else users,
            np.zeros(number) if arrivals is None else arrivals,
            np.full(number, np.inf) if deadlines is None else deadlines,
            np.zeros(number, int) if classes is None else classes,
            np.zeros(number) if slack is None else slack,
            np.full(number, np.inf) if batteries is None else batteries,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Int[np.ndarray, " m"]) -> "Tasks":
        """Return some of the tasks, in the order of `rows`."""
        return Tasks(
            tuple(self.ids[int(row)] for row in rows),
            self.vectors[rows],
            self.users[rows],
            self.arrivals[rows],
            self.deadlines[rows],
            self.classes[rows],
            self.slack[rows],
            self.batteries[rows],
        )
