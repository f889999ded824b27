"""FedIT: plain averaging of LoRA factors.

Zhang, Vahidian, Kuo, Li, Zhang, Yu, Zhou, Wang, Chen, "Towards Building the Federated GPT: Federated
Instruction Tuning", ICASSP 2024, arXiv:2305.05644.

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   p_k = n_k / sum n

Keeps: stage (the shared-stage factors are sent, the personal ones stay). The edge runs W0 + R + s B A.
Traits: averaging, stateless. Not exact: mean(B) mean(A) is not mean(B A).

Flower's FedAvg computes the same means of the factors. The adapters of the two stages are never used in the same
forward pass. If a client keeps exactly its personal stage, FedPer, FedRep and FedBABU therefore equal this rule, and
tables show one row for all of them.
"""

from dataclasses import dataclass

from fedaigc.strategy.rule import AveragingRule, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves of FedIT; the client half is plain training."""

    traits = Traits()
