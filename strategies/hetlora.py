"""HetLoRA: clients of different ranks, padded with zeros, weighted by their products' norms, and pruned.

Cho, Liu, Xu, Fahrezi, Joshi, "Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models",
EMNLP 2024, arXiv:2401.06432.

    client   F_k(A, B) + lambda sum_layers |A[q:]| |B[:, q:]|,   q = max(1, floor(gamma r_k))
             r_k <- q if the sum is smaller after the round's steps than before them
    server   A <- sum_k w_k pad(A_k),   B <- sum_k w_k pad(B_k),   w_k = |B_k A_k| / sum_j |B_j A_j|
    down     the first r_k rows of A and columns of B, at the same scale s

with Frobenius norms. pad appends zeros up to the state's rank. Each layer has its own weights w_k, which do not depend
on n_k. If no client has changed a layer, all its w_k are equal. A client has the same rank in all layers, so the sum
over the layers decides about pruning. The server stores the rank that a client pruned to and sends factors of at most
this rank. Since B starts at zero, no client prunes in the first round. With gamma = 1, no client ever prunes.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: averaging, any rank. Not exact: factors are averaged separately. Not stateless: the server keeps the
pruned ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaigc.strategy.rule import (
    LocalResult,
    LocalWork,
    Parameters,
    Received,
    Rule,
    SharedState,
    Traits,
    Update,
    WeightedMean,
    padded,
    truncated,
)

# replaces a norm of zero, so that a layer that no client changed has equal weights
_SMALLEST = 1e-12


@dataclass
class Strategy(Rule):
    """Both halves of HetLoRA.

    Attributes:
        gamma: Share of a rank that pruning keeps.
        regularisation: lambda.
    """

    gamma: float = 0.99
    regularisation: float = 5e-3

    weighting = None
    traits = Traits(stateless=False, any_rank=True)

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1 or not self.regularisation >= 0:
            raise ValueError(
                f"gamma is above 0 to 1, regularisation from 0: got {self.gamma}, {self.regularisation}"
            )
        self._ranks: dict[int, int] = {}

    def expected(self, received: Received, rank: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of factors of the received rank, or of a smaller one."""
        return super().expected(replace(received, shared=truncated(received.shared, rank)), rank)

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Train with the penalty on the last rows, and cut them off if the penalty has shrunk."""
        shared, kept = received.shared, max(1, int(self.gamma * received.shared.rank))
        trained = work.train(
            shared,
            trained=lambda name: self.trains(name, received.round),
            loss_term=lambda parameters: self.regularisation * _last_rows(parameters, kept),
        )
        after, before = (float(_last_rows(state.tensors(), kept)) for state in (trained, shared))
        if after < before:
            trained = truncated(trained, kept)
        return LocalResult(self.sent(trained, received.round), rank=trained.rank)

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """Return the first rows of A and columns of B, up to the client's rank or the rank that it pruned to."""
        pruned = self._ranks.get(client, rank)
        return Received(truncated(truncated(shared, rank), min(rank, pruned)), round)

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sums of each layer."""
        self._shared = shared
        self._means = {layer: WeightedMean() for layer in shared.lora}

    def add(self, update: Update) -> None:
        """Add both factors, padded, with the weight |B_k A_k|."""
        for layer, (down, up) in update.lora().items():
            norm = float((up.flatten(1) @ down.flatten(1)).norm())
            A, B = padded((down, up), self._shared.rank)
            self._means[layer].add(max(norm, _SMALLEST), {"A": A, "B": B})
        self._ranks[update.client] = update.rank

    def finish(self) -> SharedState:
        """Return the state with the sums divided by the sum of the norms."""
        means = {layer: mean.finish() for layer, mean in self._means.items()}
        found = {layer: (mean["A"], mean["B"]) for layer, mean in means.items() if mean}
        return replace(self._shared, lora={**self._shared.lora, **found})

    def state(self) -> dict[str, Tensor]:
        """Return the rank of each client's last update."""
        return {"ranks": torch.tensor(sorted(self._ranks.items()))} if self._ranks else {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the ranks."""
        self._ranks = {int(client): int(rank) for client, rank in state.get("ranks", ())}


def _last_rows(tensors: Parameters, kept: int) -> Tensor:
    """Return sum_layers |A[q:]| |B[:, q:]|, a scalar, which is zero if all rows are kept."""
    layers = [name.removesuffix(".lora_A") for name in tensors if name.endswith(".lora_A")]
    norms = [
        tensors[f"{layer}.lora_A"][kept:].norm() * tensors[f"{layer}.lora_B"][:, kept:].norm()
        for layer in layers
    ]
    return torch.stack(norms).sum()
