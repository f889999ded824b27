"""RoLoRA: rounds that train and average B alternate with rounds that train and average A.

Chen, Guo, Ju, Dalal, Zhu, Khisti, "Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA",
NeurIPS 2025, arXiv:2502.01755. (The earlier arXiv:2409.02346 has another title and the same rule.)

    odd rounds    B <- sum_k p_k B_k,   B_k trained from B with A fixed
    even rounds   A <- sum_k p_k A_k,   A_k trained from A with B fixed,   p_k = 1 / K

over the K clients of the round. With weighting = "examples", p_k = n_k / sum n, as in the authors' code. Rounds are
numbered from 1. B is trained first, because it starts at zero, and the gradient of A is zero while B = 0.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: averaging, stateless, exact in each round: one factor is common, and s B A is linear in the other.

An update contains one of the two factors that FedIT sends.
"""

from dataclasses import dataclass

from fedaigc.strategy.rule import AveragingRule, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves of RoLoRA: plain training of the round's factor, and its mean."""

    weighting = "uniform"
    traits = Traits(exact=True)

    def trains(self, name: str, round: int) -> bool:
        """Return whether `name` is a factor B in an odd round, or a factor A in an even one."""
        return name.endswith(".lora_B" if round % 2 else ".lora_A")
