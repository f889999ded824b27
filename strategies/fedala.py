"""FedALA: each client starts from a learned element-wise mixture of its own last model and the global one.

Zhang, Hua, Wang, Song, Xue, Ma, Guan, "FedALA: Adaptive Local Aggregation for Personalized Federated
Learning", AAAI 2023, arXiv:2212.01197.

    start    x_k + W (x - x_k),   W in [0, 1] for each element, initially 1
    learn    W <- clip(W - rate (x - x_k) grad F_k(start), 0, 1)
    train    x_k' from `start`
    server   x <- sum_k p_k x_k',   p_k = n_k / sum n

x_k is the client's model after its last round. In its first round, the client starts from x. The paper learns W on a
random subset of the images, until the loss converges when W is new and in one pass later. It learns W for the top
layers only, and the others take x. Here W is trained for a fixed number of mini-batches, in the layers that `layers`
selects. Gradients of factors are small, so the paper's rate of 1 for whole networks changes W little and must be tuned.

Keeps: stage (all shared-stage factors are sent). The edge runs W0 + R + s B A of x.
Traits: averaging, personal. Not exact, not stateless: a client keeps x_k and W.

The aggregation is that of FedIT. Only the starting point of the clients differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedaigc.strategy.rule import (
    AveragingRule,
    LocalResult,
    LocalWork,
    Received,
    SharedState,
    Traits,
    UserError,
    in_parts,
)

_LOCAL, _MIX = "local/", "mix/"


@dataclass
class Strategy(AveragingRule):
    """Both halves of FedALA.

    Attributes:
        layers: Parts of the network in which W is learned (see `in_parts`). "" selects all layers.
        rate: Learning rate of W.
        first_steps: Mini-batches for W when it is new.
        steps: Mini-batches for W in each later round.
    """

    layers: str = ""
    rate: float = 1.0
    first_steps: int = 10
    steps: int = 1

    traits = Traits(stateless=False, personal=True)

    def __post_init__(self) -> None:
        if not self.rate > 0 or min(self.first_steps, self.steps) < 0:
            raise ValueError(
                f"rate is above 0, steps start at 0: {self.rate}, {self.first_steps}, {self.steps}"
            )

    def initial(self, shared: SharedState) -> SharedState:
        """Return the state unchanged.

        Raises:
            UserError: If W would be learned in no layer.
        """
        if not any(self._mixes(layer) for layer in shared.lora):
            parts = sorted({layer.partition(".")[0] for layer in shared.lora})
            raise UserError(f"fedala: layers = {self.layers!r} fits none; they lie in {', '.join(parts)}")
        return shared

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Update W, then run plain training from the mixture."""
        round = received.round
        local = {name: memory[f"{_LOCAL}{name}"] for name in self.sent(received.shared, round) if memory}
        mix = {name.removeprefix(_MIX): W for name, W in memory.items() if name.startswith(_MIX)}
        if local:
            mix = self._learn(work, received.shared, local, mix)
        start = _mixed(received.shared, local, mix)
        trained = work.train(start, trained=lambda name: self.trains(name, round))
        kept = {f"{_LOCAL}{name}": tensor for name, tensor in self.sent(trained, round).items()}
        return LocalResult(self.sent(trained, round), kept | {f"{_MIX}{name}": W for name, W in mix.items()})

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return x_k after the last round."""
        local = {n.removeprefix(_LOCAL): tensor for n, tensor in memory.items() if n.startswith(_LOCAL)}
        return received.shared.with_tensors(local)

    def _learn(
        self, work: LocalWork, shared: SharedState, local: Mapping[str, Tensor], mix: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        x, x_k, rate = shared.tensors(), local, self.rate
        steps = self.steps if mix else self.first_steps
        W = {name: mix.get(name, torch.ones_like(x_k[name])) for name in local if self._mixes(name)}
        for step in range(steps):
            start = _mixed(shared, local, W)
            # one stream per step, since the same stream would give the same batch
            (gradient,) = work.gradients(start, wanted=set(W).__contains__, batches=1, stream=f"mix-{step}")
            W = {
                name: (w - rate * (x[name] - x_k[name]) * gradient[name].to(w)).clamp(0, 1)
                for name, w in W.items()
            }
        return W

    def _mixes(self, name: str) -> bool:
        return not self.layers or in_parts(name, self.layers)


def _mixed(shared: SharedState, local: Mapping[str, Tensor], mix: Mapping[str, Tensor]) -> SharedState:
    # lerp: x_k + W (x - x_k), exactly x where W is 1
    x = shared.tensors()
    return shared.with_tensors({name: local[name].lerp(x[name], W) for name, W in mix.items()})
