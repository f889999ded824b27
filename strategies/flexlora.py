"""FlexLoRA: the mean of the products, truncated to every client's rank by a singular value decomposition.

Bai, Chen, Qian, Yao, Li, "Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client
Resources", NeurIPS 2024, arXiv:2402.11505.

    server   W = sum_k p_k B_k A_k = U S V^T,   p_k = n_k / sum n
    client   of rank r: A = V_r^T, B = U_r S_r, the r largest singular values, then steps on both

The scale s = alpha / rank is the same at all ranks and is not part of W. The state has the largest rank of the
federation. A client of a smaller rank takes the first rows of V^T and columns of U S, which are sorted by singular
value. S is multiplied into B, because a direction with a singular value of zero would otherwise be zero in both
factors and never change again. If the rank of W is below that of the state, the last rows of A keep their values, and
the last columns of B are zero.

Keeps: stage. The edge runs W0 + R + s B A at the largest rank.
Traits: averaging, stateless, any rank. Not exact: exact only up to the truncation.
"""

from dataclasses import dataclass, replace

from fedaigc.strategy.rule import (
    ProductSum,
    Received,
    Rule,
    SharedState,
    Traits,
    Update,
    padded,
    singular_factors,
    truncated,
)


@dataclass
class Strategy(Rule):
    """Both halves of FlexLoRA; the client half is plain training."""

    traits = Traits(any_rank=True)

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """Return the best approximation of the client's rank."""
        return Received(truncated(shared, rank), round)

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sum."""
        self._shared = shared
        self._products = ProductSum()

    def add(self, update: Update) -> None:
        """Add n_k B_k A_k to the sum."""
        self._products.add(update.num_examples, update.lora())

    def finish(self) -> SharedState:
        """Return the decomposition of the mean, at the state's rank."""
        rank, lora = self._shared.rank, dict(self._shared.lora)
        for layer, W in self._products.mean().items():
            before, _ = lora[layer]
            lora[layer] = padded(singular_factors(W, rank), rank, before)
        return replace(self._shared, lora=lora)
