"""FedEx-LoRA: averages the factors, and adds what the averages miss of the mean product to the weights.

Singhal, Ponkshe, Vepakomma, "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of
Foundation Models", ACL 2025, arXiv:2410.09432.

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   p_k = 1 / K over the K clients of the round
    R <- R + s (sum_k p_k B_k A_k - B A)

so that R + s B A moves by sum_k p_k s B_k A_k. The paper's clients add the term to their W0; here W0 is never
written to. The term is kept as the stack [p_1 A_1; ...; -A], [B_1, ..., B] while that has fewer elements than
the layer's weight, and dense from then on. The state that is sent holds all of R, whereas the paper sends the
round's term.

The authors' code weighs clients alike, and so does this rule; weighting = "examples" has p_k = n_k / sum n.

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
        """Return the state with the means, and with R moved by what they miss."""
        mean = super().finish()
        s, R = mean.adapter.scale, dict(mean.residual)
        for layer, product in self._products.mean().items():
            missed = added(product, scaled(mean.lora[layer], -1.0))
            R[layer] = added(R.get(layer), scaled(missed, s))
        return replace(mean, residual=R)
