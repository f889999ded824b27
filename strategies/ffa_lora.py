"""FFA-LoRA: A stays frozen at one common value, and only B is trained and averaged.

Sun, Li, Li, Ding, "Improving LoRA in Privacy-preserving Federated Learning", ICLR 2024, arXiv:2403.12313.

    client   B_k <- steps on B of F_k(B, A)      from the common B
    server   B <- sum_k p_k B_k,   p_k = n_k / sum n

A is drawn from the run's seed before the first round and is the same for all clients. No client trains or sends it, so
an update is half as large as in FedIT if A and B have the same size. In every round, a client receives the whole state
including A, since it may take part for the first time.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: averaging, stateless, exact: with a common A, s B A is linear in B.

The first round of RoLoRA equals this rule, and so does FedSVD with a `period` that is never reached.
"""

from dataclasses import dataclass

from fedaigc.strategy.rule import AveragingRule, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves of FFA-LoRA: plain training of B, and its mean."""

    traits = Traits(exact=True)

    def trains(self, name: str, round: int) -> bool:
        """Return whether `name` is a factor B."""
        return name.endswith(".lora_B")
