"""FedSA-LoRA: A is shared, and each client keeps a B of its own.

Guo, Zeng, Wang, Fan, Wang, Qu, "Selective Aggregation for Low-Rank Adaptation in Federated Learning", ICLR
2025, arXiv:2410.01463.

    client   A_k, B_k <- steps on F_k            from the common A and its own B_k (0 in its first round)
    server   A <- sum_k p_k A_k,   p_k = n_k / sum n

Keeps: factor (A sent, B kept). The global state's B is zero, so an edge server would run W0 + R: the shared
stage has no common model, and only a device can run it.
Traits: averaging (of A), personal. Not exact, not stateless: a client keeps its B.

An update contains one of the two factors that FedIT sends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedaigc.strategy.rule import AveragingRule, LocalResult, LocalWork, Received, SharedState, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves of FedSA-LoRA."""

    traits = Traits(keeps="factor", edge=False, stateless=False, personal=True)

    def sends(self, name: str, round: int) -> bool:
        """Return whether `name` is a factor A."""
        return name.endswith(".lora_A")

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Run plain training from the common A and the client's own B, which is not sent."""
        trained = work.train(
            self.own(received, memory), trained=lambda name: self.trains(name, received.round)
        )
        kept = {name: tensor for name, tensor in trained.tensors().items() if name.endswith(".lora_B")}
        return LocalResult(self.sent(trained, received.round), kept)

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return the state with the common A and the client's own B."""
        return received.shared.with_tensors(memory)

    def initial(self, shared: SharedState) -> SharedState:
        """Return the state with zeros for B."""
        lora = {layer: (down, torch.zeros_like(up)) for layer, (down, up) in shared.lora.items()}
        return replace(shared, lora=lora)
