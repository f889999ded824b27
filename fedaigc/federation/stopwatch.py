"""The seconds that the activities of a run take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Measures the seconds that each activity takes.

    Args:
        digits: Digits to which seconds are rounded.

    Attributes:
        seconds: Total seconds by activity.
    """

    def __init__(self, digits: int = 3) -> None:
        self._digits = digits
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Add the duration of the context to the seconds of `what`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] = round(self.seconds.get(what, 0.0) + time.monotonic() - began, self._digits)
