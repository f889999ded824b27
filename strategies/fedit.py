"""FedIT: plain averaging of LoRA factors.

Zhang, Vahidian, Kuo, Li, Zhang, Yu, Zhou, Wang, Chen, "Towards Building the Federated GPT: Federated
Instruction Tuning", ICASSP 2024, arXiv:2305.05644.

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   p_k = n_k / sum n

Keeps: stage (the shared-stage factors are sent, the personal ones stay). The edge runs W0 + R + s B A.
Traits: averaging, stateless. Not exact: mean(B) mean(A) is not mean(B A).

Flower's FedAvg computes the same means if it is given the factors as arrays. The two stage adapters never
meet in one forward pass. With the personal stage as the part that a client keeps, FedPer, FedRep and FedBABU
are therefore the same rule too: one row in a table.
"""

from dataclasses import dataclass

from fedaigc.strategy.rule import AveragingRule, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves of FedIT; the client half is plain training."""

    traits = Traits()
