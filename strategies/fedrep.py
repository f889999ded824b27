"""FedRep: each client first trains personal layers, and then the layers that it shares with the others.

Collins, Hassani, Mokhtari, Shakkottai, "Exploiting Shared Representations for Personalized Federated
Learning", ICML 2021, arXiv:2102.07078.

    client   h_k <- steps on h of F_k(phi, h)        from its own h_k, phi fixed
             phi_k <- steps on phi of F_k(phi, h_k)  from phi, h_k fixed
    server   phi <- sum_k p_k phi_k,   p_k = 1 / K over the K clients of the round

In the paper, the head h is the last layer of a classifier. Here h consists of the shared stage's factors in the layers
that `personal` selects. The steps of a round are divided between h and phi, whereas the paper trains phi for one step
or one epoch. With weighting = "examples", p_k = n_k / sum n.

Keeps: blocks (h_k stays). The global state has no factors for h: the edge runs W0 there, and W0 + s B A in
the other layers.
Traits: averaging (on phi), personal. Not exact, not stateless: a client keeps h_k.

Without personal layers, the rule equals FedIT with the same weighting bit for bit. The same holds if a client keeps
only its personal-stage adapter, which is never used in the same forward pass as the shared one. FedPer (which trains
both together) and FedBABU (which freezes the head meanwhile) then share the same factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from fedaigc.strategy.rule import (
    AveragingRule,
    LocalResult,
    LocalWork,
    Received,
    SharedState,
    Traits,
    UserError,
    in_parts,
)


@dataclass
class Strategy(AveragingRule):
    """Both halves of FedRep.

    Attributes:
        personal: Parts of the network whose layers are personal (see `in_parts`). "" selects none.
        personal_share: Share of a round's steps on the personal layers. Each part gets at least one step.
    """

    personal: str = "up_blocks"
    personal_share: float = 0.5

    weighting = "uniform"
    traits = Traits(keeps="blocks", stateless=False, personal=True)

    def __post_init__(self) -> None:
        if not 0 < self.personal_share < 1:
            raise ValueError(f"personal_share lies between 0 and 1, got {self.personal_share}")

    def sends(self, name: str, round: int) -> bool:
        """Return whether `name` is a factor of a shared layer."""
        return self.trains(name, round) and not in_parts(name, self.personal)

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Train h_k first, then phi."""
        shared, round = received.shared, received.round
        if not self.personal:
            return super().client(work, received, memory)
        if not memory:
            memory = self._personal(work.fresh(shared.rank, shared.alpha).tensors())
        steps = max(1, int(self.personal_share * work.num_steps))
        whole = self._with(shared, memory)
        whole = work.train(whole, trained=lambda name: name in memory, steps=steps, stream="personal-layers")
        whole = work.train(
            whole, trained=lambda name: self.sends(name, round), steps=max(1, work.num_steps - steps)
        )
        return LocalResult(self.sent(whole, round), self._personal(whole.tensors()))

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return the state with phi and h_k."""
        return self._with(received.shared, memory)

    def initial(self, shared: SharedState) -> SharedState:
        """Return the state without the factors of the personal layers.

        Raises:
            UserError: If `personal` fits no layer or every layer.
        """
        lora = {layer: pair for layer, pair in shared.lora.items() if not in_parts(layer, self.personal)}
        if not lora or (self.personal and len(lora) == len(shared.lora)):
            parts = sorted({layer.partition(".")[0] for layer in shared.lora})
            raise UserError(
                f"fedrep: personal = {self.personal!r} fits {'every layer' if not lora else 'no layer'}; "
                f"the layers lie in {', '.join(parts)}"
            )
        return replace(shared, lora=lora)

    def _personal(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if in_parts(name, self.personal)}

    def _with(self, shared: SharedState, memory: Mapping[str, Tensor]) -> SharedState:
        return SharedState.from_tensors(shared.header(), shared.tensors() | dict(memory))
