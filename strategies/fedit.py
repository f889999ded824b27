"""FedIT: plain averaging of LoRA factors.

Zhang, Vahidian, Kuo, Li, Zhang, Yu, Zhou, Wang, Chen, "Towards Building the Federated GPT: Federated
Instruction Tuning", ICASSP 2024, arXiv:2305.05644.

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   p_k = n_k / sum n

Partition: stage (the shared-stage factors are sent, the personal ones stay). The edge runs W0 + R + s B A.
Traits: averaging, stateless. Not exact: mean(B) mean(A) is not mean(B A).

Flower's FedAvg, given the factors as arrays, computes the same means, and as the two stage adapters never
meet in one forward pass, FedPer, FedRep and FedBABU under this partition are the same rule too: one row in a
table.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from fedaigc.federation.rule import Adapter, SharedState, Update


class Strategy:
    """Both halves of FedIT."""

    def begin(self, shared: SharedState) -> Adapter:
        """The client trains on from the averaged factors."""
        return shared.adapter

    def loss_term(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """Nothing is added to the loss."""
        return None

    def after_step(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Nothing is corrected."""

    def upload(self, trained: Adapter) -> Mapping[str, Tensor]:
        """Both factors of every layer."""
        return trained.tensors()

    def start(self, shared: SharedState) -> None:
        """Empty sums."""
        self._shared = shared
        self._total = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, update: Update) -> None:
        """sum n_k A_k and sum n_k B_k."""
        self._total += update.num_examples
        for name, tensor in update.tensors.items():
            weighted = update.num_examples * tensor
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted

    def finish(self) -> SharedState:
        """The sums over sum n."""
        if not self._total:
            return self._shared
        means = {name: tensor / self._total for name, tensor in self._sums.items()}
        return self._shared.with_adapter(self._shared.adapter.with_tensors(means))

    def download(self, shared: SharedState, partition: int) -> SharedState:
        """Every client gets the same state."""
        return shared
