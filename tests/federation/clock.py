"""A clock for the server's modules, on which pauses pass at once."""

import time
from collections.abc import Callable

import pytest


class Clock:
    """Takes the place of `time` in a module: a pause moves the clock on, and calls what is due by then."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._due: list[tuple[float, Callable[[], object]]] = []

    def instead_of(self, patch: pytest.MonkeyPatch, *modules: object) -> None:
        """Let these modules go by this clock."""
        for module in modules:
            patch.setattr(module, "time", self)

    def after(self, paused_s: float, act: Callable[[], object]) -> None:
        """Call `act` when pauses of so many seconds have passed in all."""
        self._due.append((paused_s, act))

    def monotonic(self) -> float:
        """Return the time, with all pauses."""
        return time.monotonic() + self._ahead

    def time(self) -> float:
        """Return the time of day, with all pauses."""
        return time.time() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Let the time pass without waiting."""
        self._ahead += seconds
        now = [act for paused_s, act in self._due if paused_s <= self._ahead]
        self._due = [(paused_s, act) for paused_s, act in self._due if paused_s > self._ahead]
        for act in now:
            act()
