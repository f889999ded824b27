"""Local only: the baseline without a federation. Nothing is sent; each client goes on from its own factors.

    A_k, B_k <- steps on F_k from A_k, B_k

Keeps: stage, but for what is sent: nothing. The global state stays what it was, and the edge runs W0.
Traits: personal, any rank. Not averaging, not stateless: a client keeps its factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedaigc.strategy.rule import (
    LocalResult,
    LocalWork,
    Received,
    Rule,
    SharedState,
    Traits,
    Update,
    truncated,
)


@dataclass
class Strategy(Rule):
    """Both halves; the server's does nothing."""

    weighting = None
    traits = Traits(averaging=False, stateless=False, any_rank=True, personal=True)

    def sends(self, name: str, round: int) -> bool:
        """Nothing."""
        return False

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Training from its own factors; the first time, from the common ones."""
        before = self.own(received, memory)
        after = work.train(before, trained=lambda name: self.trains(name, received.round))
        return LocalResult({}, after.adapter.tensors())

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """The client's own factors."""
        return received.shared.with_tensors(memory)

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """The first `rank` directions of the fresh factors, at the same scale."""
        return Received(truncated(shared, rank), round)

    def start(self, shared: SharedState, round: int) -> None:
        """Nothing to prepare."""
        self._shared = shared

    def add(self, update: Update) -> None:
        """Nothing to take."""

    def finish(self) -> SharedState:
        """What it was."""
        return self._shared
