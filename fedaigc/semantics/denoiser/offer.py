"""An offer of hand-offs to one member of a group: the device takes the last one that its tolerance allows."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from fedaigc.bounds import MAX_LADDER

NO_NODE = -1


@dataclass(frozen=True, eq=False)
class Offer:
    """What the shared steps of a group run on, and where they may be left.

    The reply is one of the hand-offs, or 0: it says within which range the distance of the prompt lies, and no more.

    Attributes:
        task_id: The member's task.
        node: Node of the atlas on whose public caption the shared steps run; NO_NODE: `vector` says it.
        ladder: Hand-offs, ascending.
        vector: Vector of a conditioning that is no caption's; empty: `node` says it.
        nodes: For each hand-off, the node on whose caption the steps that end there run, where it changes; the first
            is `node`. Empty: all of them run on that of `node`.

    Raises:
        ValueError: If it names both or neither, or has no ladder.
    """

    task_id: str
    node: int
    ladder: tuple[int, ...]
    vector: Float[np.ndarray, " d"]
    nodes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.node == NO_NODE) is not bool(len(self.vector)):
            raise ValueError("invalid offer: expected a node or a vector, and not both")
        if not 0 < len(self.ladder) <= MAX_LADDER or self.ladder[0] < 1:
            raise ValueError(
                f"a ladder of {len(self.ladder)} hand-offs: expected 1 to {MAX_LADDER}, from step 1 on"
            )
        if any(later <= step for step, later in pairwise(self.ladder)):
            raise ValueError("invalid ladder: expected ascending hand-offs")
        if self.nodes and (len(self.nodes) != len(self.ladder) or self.nodes[0] != self.node):
            raise ValueError(
                "invalid offer: expected a node for each hand-off, and first the one of the offer"
            )
