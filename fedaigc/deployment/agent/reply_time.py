"""Reply times that do not depend on what was computed for the reply.

How long a task takes could depend on its prompt: a network that a server made can be slow for some values.
Replies therefore wait for the next time on a fixed ladder:

    floor r^k,   k = 0, 1, 2, ...

Tasks of one plan then reply after exactly the same time; only the rung of the ladder remains visible.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

RATIO = 1.25


def rung(elapsed_s: float, floor_s: float) -> float:
    """Return the time on the ladder at which a reply leaves.

    Args:
        elapsed_s: Seconds that the reply took to compute.
        floor_s: The lowest rung in seconds.

    Returns:
        Seconds after the order arrived.

    Raises:
        ValueError: If the floor is not above 0.
    """
    if not floor_s > 0:
        raise ValueError(f"a floor of {floor_s} s: expected more than 0")
    steps = max(0, math.ceil(math.log(max(elapsed_s, floor_s) / floor_s, RATIO)))
    return floor_s * RATIO**steps


@contextmanager
def held_back(floor_s: float) -> Iterator[None]:
    """Leave the context at the next time on the ladder, also if an exception is raised.

    Args:
        floor_s: The lowest rung in seconds.
    """
    began = time.monotonic()
    try:
        yield
    finally:
        end = began + rung(time.monotonic() - began, floor_s)
        # a sleep may be off by about a tenth of a millisecond: the loop waits for the rest
        while (left := end - time.monotonic()) > 0:
            time.sleep(left)
