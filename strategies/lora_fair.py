"""LoRA-FAIR: the means of the factors, with B corrected towards the mean product.

Bian, Wang, Zhang, Xu, "LoRA-FAIR: Federated LoRA Fine-Tuning with Aggregation and Initialization Refinement",
ICCV 2025, arXiv:2411.14961.

    A = sum_k p_k A_k,   B' = sum_k p_k B_k,   W = sum_k p_k B_k A_k,   p_k = n_k / sum n
    B = B' + dB,   dB = argmin |W - (B' + dB) A|^2 + lambda |dB|^2
                      = (W - B' A) A^T (A A^T + lambda I)^-1

with Frobenius norms. The paper measures the first term by a cosine similarity and minimises it by gradient descent,
whereas the squared distance has this closed form. No term contains the scale s. Clients start from the corrected
factors.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: averaging, stateless. Not exact: the part of W outside the span of A's rows is lost, and lambda shrinks dB.
"""

from dataclasses import dataclass, replace

import torch

from fedaigc.strategy.rule import (
    AveragingRule,
    ProductSum,
    SharedState,
    Traits,
    Update,
    added,
    scaled,
    times,
)


@dataclass
class Strategy(AveragingRule):
    """Both halves of LoRA-FAIR; the client half is plain training.

    Attributes:
        regularisation: lambda.
    """

    regularisation: float = 0.01

    traits = Traits()

    def __post_init__(self) -> None:
        if not self.regularisation > 0:
            raise ValueError(f"regularisation is above 0, got {self.regularisation}")

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sums."""
        super().start(shared, round)
        self._products = ProductSum()

    def add(self, update: Update) -> None:
        """Add n_k A_k, n_k B_k and n_k B_k A_k to the sums."""
        super().add(update)
        self._products.add(update.num_examples, update.lora())

    def finish(self) -> SharedState:
        """Return the state with mean(A), and mean(B) + dB."""
        mean = super().finish()
        lora = dict(mean.lora)
        for layer, W in self._products.mean().items():
            down, up = mean.lora[layer]
            A = down.flatten(1).double()
            missed = times(added(W, scaled((down, up), -1.0)), down.flatten(1).T).double()
            gram = A @ A.T + self.regularisation * torch.eye(len(A), dtype=A.dtype)
            # gram is symmetric: X gram = missed is gram X^T = missed^T
            correction = torch.linalg.solve(gram, missed.T).T
            lora[layer] = (down, up + correction.to(up).reshape(up.shape))
        return replace(mean, lora=lora)
