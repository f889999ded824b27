"""FFA-LoRA: A stays frozen at one common value, and B alone is trained and averaged.

Sun, Li, Li, Ding, "Improving LoRA in Privacy-preserving Federated Learning", ICLR 2024, arXiv:2403.12313.

    client   B_k <- steps on B of F_k(B, A)      from the common B
    server   B <- sum_k p_k B_k,   p_k = n_k / sum n

A is what the run drew from its seed before the first round, the same for all: no client trains or sends it,
so an update is the half of FedIT's where A and B are alike. The state that a client receives is whole, A
with it, since a client of any round may be new.

Keeps: stage. The edge runs W0 + R + s B A. Traits: averaging, stateless, exact: with A common, s B A is
linear in B. RoLoRA is the same in its first round; so is FedSVD with a `period` that never comes.
"""

from dataclasses import dataclass

from fedaigc.strategy.rule import AveragingRule, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves of FFA-LoRA: plain training of B, and its mean."""

    traits = Traits(exact=True)

    def trains(self, name: str, round: int) -> bool:
        """B."""
        return name.endswith(".lora_B")
