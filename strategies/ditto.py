"""Ditto: each client also trains a personal model, which a proximal term keeps close to the global one.

Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021,
arXiv:2012.04221.

    global     w <- sum_k p_k w_k,   w_k trained from w,   p_k = n_k / sum n
    personal   v_k <- v_k - eta (grad F_k(v_k) + mu (v_k - w))

w is the received state. v_k starts from its value after the client's last round, or from w in its first round. mu is
the paper's lambda. Norms are those of the factors, not of their product. AdamW normalises the sum of the gradient and
the proximal term.

Keeps: stage. The edge runs W0 + R + s B A of w; a device alone may run v_k.
Traits: averaging, personal. Not exact, not stateless: a client keeps v_k.

The global model and the messages are those of FedIT. v_k adds the cost of a second training.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedaigc.strategy.rule import (
    AveragingRule,
    LocalResult,
    LocalWork,
    Parameters,
    Received,
    SharedState,
    Traits,
)


@dataclass
class Strategy(AveragingRule):
    """Both halves of Ditto.

    Attributes:
        mu: Weight of the proximal term between v_k and w.
        personal_steps: Steps on v_k per round. 0 selects the number of steps on w.
    """

    mu: float = 0.1
    personal_steps: int = 0

    traits = Traits(stateless=False, personal=True)

    def __post_init__(self) -> None:
        if not self.mu >= 0 or not self.personal_steps >= 0:
            raise ValueError(f"mu and personal_steps start at 0, got {self.mu} and {self.personal_steps}")

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Train w_k as in FedIT, then v_k."""
        mu, w, round = self.mu, received.shared.tensors(), received.round
        result = super().client(work, received, memory)

        def towards_w(parameters: Parameters) -> Parameters:
            return {name: mu * (v.detach() - w[name].to(v)) for name, v in parameters.items()}

        v = work.train(
            self.own(received, memory),
            trained=lambda name: self.trains(name, round),
            steps=self.personal_steps or None,
            gradient_term=towards_w,
            stream="personal-shared",
        )
        return LocalResult(result.upload, self.sent(v, round))

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return v_k."""
        return received.shared.with_tensors(memory)
