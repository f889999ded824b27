"""When a reply leaves: at times that do not depend on what was computed for it.

How long a task takes could depend on its prompt (a network that a server made can be slow for some values),
so replies wait for the next time of a fixed ladder, floor r^k for k = 0, 1, 2, ... Tasks of one plan then
reply after the very same time; what is left is which rung it was.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

RATIO = 1.25


def rung(elapsed_s: float, floor_s: float) -> float:
    """The time of the ladder, in seconds after the order came, at which a reply that took this long leaves.

    ValueError for a floor that is not above 0.
    """
    if not floor_s > 0:
        raise ValueError(f"a floor of {floor_s} s: expected more than 0")
    steps = max(0, math.ceil(math.log(max(elapsed_s, floor_s) / floor_s, RATIO)))
    return floor_s * RATIO**steps


@contextmanager
def held_back(floor_s: float) -> Iterator[None]:
    """Leaves at the next time of the ladder, also when an exception passes."""
    began = time.monotonic()
    try:
        yield
    finally:
        end = began + rung(time.monotonic() - began, floor_s)
        # a sleep may end early or late by some tenth of a millisecond: the last of it is waited for
        while (left := end - time.monotonic()) > 0:
            time.sleep(left)
