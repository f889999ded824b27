"""FedEx-LoRA: averages the factors, and adds the error of their product to the weights.

Singhal, Ponkshe, Vepakomma, "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of
Foundation Models", ACL 2025, arXiv:2410.09432.

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   p_k = 1 / K over the K clients of the round
    R <- R + s (sum_k p_k B_k A_k - B A)

so that R + s B A changes by sum_k p_k s B_k A_k. In the paper, clients add this term to their W0. Here W0 never
changes. R is stored as the stack [p_1 A_1; ...; -A], [B_1, ..., B] while this has fewer elements than the layer's
weight, and dense from then on. The server sends all of R in every round, whereas the paper sends the term of the round.

As in the authors' code, all clients have the same weight. With weighting = "examples", p_k = n_k / sum n.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: averaging, exact, stateless.
"""

from dataclasses import dataclass, replace

from fedaigc.strategy.rule import AveragingRule, ProductSum, SharedState, Traits, Update, added, scaled


@dataclass
class Strategy(AveragingRule):
    """Both halves of FedEx-LoRA; the client half is plain training."""

    weighting = "uniform"
    traits = Traits(exact=True, residual=True)

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sums."""
        super().start(shared, round)
        self._products = ProductSum()

    def add(self, update: Update) -> None:
        """Add n_k A_k, n_k B_k and n_k B_k A_k to the sums."""
        super().add(update)
        self._products.add(update.num_examples, update.lora())

    def finish(self) -> SharedState:
        """Return the state with the mean factors, and with the error of their product added to R."""
        mean = super().finish()
        s, R = mean.adapter.scale, dict(mean.residual)
        for layer, product in self._products.mean().items():
            missed = added(product, scaled(mean.lora[layer], -1.0))
            R[layer] = added(R.get(layer), scaled(missed, s))
        return replace(mean, residual=R)
