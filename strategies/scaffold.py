"""SCAFFOLD: control variates that correct the drift of clients.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning", ICML 2020, arXiv:1910.06378.

    client   y <- y - eta (g(y) - c_k + c)            K steps from y = x
             c_k' = c_k - c + (x - y) / (K eta)       (option II)
    server   x <- x + eta_g sum_k p_k (y_k - x)
             c <- c + (|S| / N) sum_k p_k (c_k' - c_k)

where S is the set of the round's clients and N the number of all clients. p_k = 1 / |S| as in the paper. With
weighting = "examples", p_k = n_k / sum n, for an objective with these weights.

With plain SGD, x - y = eta sum_j (g_j - c_k + c), so option II is c_k' = (1 / K) sum_j g_j, the mean of the raw
gradients of all steps. This rule computes this mean, which is a gradient also under AdamW or clipping, where
(x - y) / (K eta) is a mean of normalised steps and would be much larger than the gradients. With AdamW, the correction
is added before the normalisation, a case that the theory of the paper does not cover.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: averaging (while eta_g = 1). Not exact, not stateless: the server keeps c, a client c_k.

With the same weighting, the aggregation of x is that of FedIT. The updates differ from the second round on. Messages
are twice as large as in FedIT, in both directions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaigc.strategy.rule import (
    AveragingRule,
    LocalResult,
    LocalWork,
    Parameters,
    Received,
    SharedState,
    Traits,
    Update,
)

_CONTROL = "control/"


@dataclass
class Strategy(AveragingRule):
    """Both halves of SCAFFOLD.

    Attributes:
        server_learning_rate: eta_g.
    """

    weighting = "uniform"

    server_learning_rate: float = 1.0

    traits = Traits(stateless=False)

    def __post_init__(self) -> None:
        if not self.server_learning_rate > 0:
            raise ValueError(f"server_learning_rate is above 0, got {self.server_learning_rate}")
        self.traits = replace(self.traits, averaging=self.server_learning_rate == 1)
        self._control: dict[str, Tensor] = {}

    def expected(self, received: Received, rank: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the factors, and of the change of the control variate of each factor."""
        shapes = super().expected(received, rank)
        return shapes | {f"{_CONTROL}{name}": shape for name, shape in shapes.items()}

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Take steps along g(y) - c_k + c, and set c_k' to the mean of g(y)."""
        c = dict(received.extra)
        c_k = {name: memory.get(name, torch.zeros_like(value)) for name, value in c.items()}
        gradients = {name: torch.zeros_like(value) for name, value in c.items()}
        steps = 0

        def correction(parameters: Parameters) -> Parameters:
            nonlocal steps
            steps += 1
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    gradients[f"{_CONTROL}{name}"] += parameter.grad.detach().to(c[f"{_CONTROL}{name}"])
            return {
                name: (c[f"{_CONTROL}{name}"] - c_k[f"{_CONTROL}{name}"]).to(parameter)
                for name, parameter in parameters.items()
            }

        y = work.train(
            received.shared,
            trained=lambda name: self.trains(name, received.round),
            gradient_term=correction,
        )
        after = {name: total / max(steps, 1) for name, total in gradients.items()}
        changes = {name: after[name] - c_k[name] for name in c}
        return LocalResult(self.sent(y, received.round) | changes, after)

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """Return x, with c in `extra`."""
        return replace(super().download(shared, client, rank, round), extra=self._controls(shared, round))

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sums."""
        super().start(shared, round)
        self._control = self._controls(shared, round)
        self._num_updates = 0

    def add(self, update: Update) -> None:
        """Add n_k y_k and n_k (c_k' - c_k) to the sums."""
        super().add(update)
        self._num_updates += 1

    def finish(self) -> SharedState:
        """Return the state with the new x, and update c."""
        means = self._mean.finish()
        if not means:
            return self._shared
        share = self._num_updates / (self.num_clients or self._num_updates)
        for name in self._control:
            self._control[name] = self._control[name] + share * means.pop(name)
        start = self._shared.tensors()
        # lerp: x + eta_g (y - x), exactly y at eta_g = 1
        moved = {name: start[name].lerp(y, self.server_learning_rate) for name, y in means.items()}
        return self._shared.with_tensors(moved)

    def state(self) -> dict[str, Tensor]:
        """Return c."""
        return dict(self._control)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore c."""
        self._control = dict(state)

    def _controls(self, shared: SharedState, round: int) -> dict[str, Tensor]:
        names = self.sent(shared, round)
        fresh = {f"{_CONTROL}{name}": torch.zeros_like(tensor) for name, tensor in names.items()}
        return fresh | self._control
