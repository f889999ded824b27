"""FLoRA: the clients' factors are stacked and merged into the weights, and each round starts with fresh factors.

Wang, Shen, He, Sun, Wang, Lyu, Li, "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous
Low-Rank Adaptations", NeurIPS 2024, arXiv:2409.05976.

    client   A_k, B_k <- steps on F_k             from a fresh A of the client's rank r_k, and B = 0
    server   A = [p_1 A_1; p_2 A_2; ...],   B = [B_1, B_2, ...],   p_k = n_k / sum n
             R <- R + s B A = R + sum_k p_k s B_k A_k

Only A is multiplied by p, since the product would otherwise contain p squared. In the paper, clients merge the product
into their W0. Here W0 never changes, and R, which every machine adds to it, grows by sum_k r_k rows per round. Once
the rows of a layer have more elements than its weight, R becomes dense there and stops growing. The server sends all
of R in every round, whereas the paper sends the stack of the round to clients that took part from the start.

The fresh A of a client is drawn from the run's seed for each (round, client), uniform in +-1 / sqrt(fan_in)
as in peft, so that stacked rows differ. The global state's own factors are never trained: B is zero. The edge
and every device therefore run W0 + R at the start of a round, whatever their ranks.

Keeps: stage. The edge runs W0 + R.
Traits: averaging, exact, stateless, any rank.
"""

import math
from dataclasses import dataclass, replace

import torch

from fedaigc.strategy.rule import (
    ProductSum,
    Received,
    Rule,
    SharedState,
    Traits,
    Update,
    added,
    rng,
    scaled,
    truncated,
)


@dataclass
class Strategy(Rule):
    """Both halves of FLoRA; the client half is plain training."""

    traits = Traits(exact=True, any_rank=True, residual=True)

    def initial(self, shared: SharedState) -> SharedState:
        """Return the state with zeros for B, so that its factors have no effect."""
        lora = {layer: (down, torch.zeros_like(up)) for layer, (down, up) in shared.lora.items()}
        return replace(shared, lora=lora)

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """Return R, and fresh factors of the client's rank at the same scale."""
        received = truncated(shared, rank)
        generator = rng(self.seed, "fresh factors", round, client)
        lora = {}
        for layer, (down, up) in received.lora.items():
            bound = 1 / math.sqrt(down[0].numel())
            fresh = bound * (2 * torch.rand(down.shape, generator=generator) - 1)
            lora[layer] = (fresh, torch.zeros_like(up))
        return Received(replace(received, lora=lora), round)

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the stack."""
        self._shared = shared
        self._stack = ProductSum()

    def add(self, update: Update) -> None:
        """Append n_k A_k to the stacked rows and B_k to the stacked columns."""
        self._stack.add(update.num_examples, update.lora())

    def finish(self) -> SharedState:
        """Return the state with s B A added to R."""
        s, R = self._shared.adapter.scale, dict(self._shared.residual)
        for layer, product in self._stack.mean().items():
            R[layer] = added(R.get(layer), scaled(product, s))
        return replace(self._shared, residual=R)
