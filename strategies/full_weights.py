"""Full weights: averaging of all weights of the shared stage, which adapters approximate.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, arXiv:1602.05629 (FedAvg), on every linear and convolutional layer.

    R = sum_k p_k R_k,   p_k = n_k / sum n,   the weight of a layer is W0 + R in the shared stage

R is a dense residual that starts at zero. There are no factors. W0 is kept, since the personal stage uses it.

Keeps: stage. The edge runs W0 + R.
Traits: averaging, stateless, exact: the effective weight is linear in what is averaged.

Bytes: all weights of these layers, in both directions. Ranks have no effect: all clients train all weights.
"""

from dataclasses import dataclass, replace

import torch

from fedaigc.strategy.rule import AveragingRule, SharedState, Traits


@dataclass
class Strategy(AveragingRule):
    """Both halves: plain training of R, and its mean."""

    traits = Traits(exact=True, full_weights=True, residual=True)

    def trains(self, name: str, round: int) -> bool:
        """Return whether `name` is a residual."""
        return name.endswith(".residual")

    def initial(self, shared: SharedState) -> SharedState:
        """Return the state with zero residuals in place of factors.

        If the state has no residuals, the layers with factors get one.
        """
        adapted = {
            layer: torch.zeros((len(up), *down.shape[1:])) for layer, (down, up) in shared.lora.items()
        }
        return replace(shared, lora={}, residual=dict(shared.residual) or adapted)
