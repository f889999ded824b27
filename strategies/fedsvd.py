"""FedSVD: B is trained and averaged, and B A is periodically factored again, which yields a new A.

Lee, Park, Lee, Wagner, Seong, Bocklet, Lee, Hwang, "FedSVD: Adaptive Orthogonalization for Private Federated
Learning with LoRA", NeurIPS 2025, arXiv:2505.12805.

    client   B_k <- steps on B of F_k(B, A)       from the common B
    server   B <- sum_k p_k B_k,   p_k = n_k / sum n
             every `period` rounds, after the first `warmup`   U S V^T = B A,   A <- V^T,   B <- U S

The authors' code has both settings with the same defaults: factor again after every round, from the first on. The rank
of B A is at most the number of rows of A, so the factorization is lossless. Directions of A that B does not use yet
have a singular value of zero, but remain in the span of A's rows, which V^T preserves. Before the first factorization,
A is drawn from the run's seed, and no direction is preferred. A warm-up lets B grow first.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: averaging, stateless, exact: with a common A, s B A is linear in B, and factoring again does not change it.

With a `period` that is never reached, the rule equals FFA-LoRA.
"""

from dataclasses import dataclass, replace

from fedaigc.strategy.rule import AveragingRule, SharedState, Traits, padded, singular_factors


@dataclass
class Strategy(AveragingRule):
    """Both halves of FedSVD.

    Attributes:
        period: Rounds between two factorizations.
        warmup: Rounds before the first factorization.
    """

    period: int = 1
    warmup: int = 0

    traits = Traits(exact=True)

    def __post_init__(self) -> None:
        if self.period < 1 or self.warmup < 0:
            raise ValueError(f"period starts at 1, warmup at 0: got {self.period} and {self.warmup}")

    def trains(self, name: str, round: int) -> bool:
        """Return whether `name` is a factor B."""
        return name.endswith(".lora_B")

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sums."""
        super().start(shared, round)
        self._factors_again = round % self.period == 0 and round > self.warmup

    def finish(self) -> SharedState:
        """Return the state with the mean of B, or with A = V^T and B = U S after a round that factors again."""
        updated = self._mean.total > 0
        mean = super().finish()
        if not (updated and self._factors_again):
            return mean
        lora = {
            layer: padded(singular_factors((A, B), mean.rank), mean.rank, A)
            for layer, (A, B) in mean.lora.items()
        }
        return replace(mean, lora=lora)
