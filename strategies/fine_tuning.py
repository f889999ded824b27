"""Fine-tuning: the global model of FedIT, and on each device a copy that is trained for a few more steps.

This is the simplest personal model, and the baseline for all other personal rules (Collins, Hassani, Mokhtari,
Shakkottai, "FedAvg with Fine Tuning: Local Updates Lead to Representation Learning", NeurIPS 2022,
arXiv:2205.13692).

    global     x <- sum_k p_k x_k,   x_k trained from x,   p_k = n_k / sum n
    personal   v_k <- `steps` more steps on F_k, from x_k

v_k is trained in each round, so every device has one when training ends. It derives from the state that the client
received in its last round, not from the mean at the end of that round.

Keeps: stage. The edge runs W0 + R + s B A of x; a device alone may run v_k.
Traits: averaging, personal. Not exact, not stateless: a client keeps v_k, which has no effect on later rounds.

The messages are those of FedIT.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedaigc.strategy.rule import AveragingRule, LocalResult, LocalWork, Received, SharedState, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves of fine-tuning.

    Attributes:
        steps: Steps on v_k after those of the round. With 0, v_k is x_k.
    """

    steps: int = 10

    traits = Traits(stateless=False, personal=True)

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps start at 0, got {self.steps}")

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Train x_k as in FedIT, then v_k from x_k."""
        round = received.round
        trained = work.train(received.shared, trained=lambda name: self.trains(name, round))
        tuned = trained
        if self.steps:
            tuned = work.train(
                trained, trained=lambda name: self.trains(name, round), steps=self.steps, stream="fine-tuning"
            )
        return LocalResult(self.sent(trained, round), self.sent(tuned, round))

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return v_k."""
        return received.shared.with_tensors(memory)
