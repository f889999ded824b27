"""Local only: the baseline without aggregation, in which each client continues from its own factors.

    A_k, B_k <- steps on F_k from A_k, B_k

Keeps: stage, but clients send no tensors. The global state does not change, and the edge runs W0.
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
    """Both halves of local training; the server half does nothing."""

    weighting = None
    traits = Traits(averaging=False, stateless=False, any_rank=True, personal=True)

    def sends(self, name: str, round: int) -> bool:
        """Return False for every tensor."""
        return False

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Train from the client's own factors, or from the common ones in its first round."""
        before = self.own(received, memory)
        after = work.train(before, trained=lambda name: self.trains(name, received.round))
        return LocalResult({}, after.adapter.tensors())

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return the state with the client's own factors."""
        return received.shared.with_tensors(memory)

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """Return the first `rank` directions of the fresh factors, at the same scale."""
        return Received(truncated(shared, rank), round)

    def start(self, shared: SharedState, round: int) -> None:
        """Store the state, which does not change."""
        self._shared = shared

    def add(self, update: Update) -> None:
        """Do nothing."""

    def finish(self) -> SharedState:
        """Return the state unchanged."""
        return self._shared
