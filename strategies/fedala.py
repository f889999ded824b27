"""FedALA: each client starts from an element-wise mix of its own last model and the global one, which it
learns.

Zhang, Hua, Wang, Song, Xue, Ma, Guan, "FedALA: Adaptive Local Aggregation for Personalized Federated
Learning", AAAI 2023, arXiv:2212.01197.

    start    x_k + W (x - x_k),   W in [0, 1] for each element, at first 1
    learn    W <- clip(W - rate (x - x_k) grad F_k(start), 0, 1)
    train    x_k' from `start`
    server   x <- sum_k p_k x_k',   p_k = n_k / sum n

x_k is the client's model as its last round left it; in its first round it starts from x. The paper learns W
on a random share of the images, until the loss settles when W is new and in one pass later, and for the top
layers only, the others taking x. Here W takes a fixed number of mini-batch steps, and `layers` says where it
is learned. Gradients of factors are small: rate = 1, the paper's for whole networks, moves W little here and
is to be tuned.

Keeps: stage (all shared-stage factors are sent). The edge runs W0 + R + s B A of x. Traits: averaging,
personal. Not exact, not stateless: a client keeps x_k and W. On given updates x moves as FedIT's; what
differs is where clients start.
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

    layers: the parts of the network where W is learned (see `in_parts`; "": everywhere). rate: of W.
    first_steps and steps: mini-batches for W when it is new, and in each round later.
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
        """As it is. Raises UserError when W would be learned nowhere."""
        if not any(self._mixes(layer) for layer in shared.lora):
            parts = sorted({layer.partition(".")[0] for layer in shared.lora})
            raise UserError(f"fedala: layers = {self.layers!r} fits none; they lie in {', '.join(parts)}")
        return shared

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """The mix, learned a little further, then plain training from it."""
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
        """x_k, as the last round left it."""
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
            # a stream for each step: the same one would give the same batch
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
