"""Training of a pipeline in float16 or bfloat16: float32 factors, autocast, and a scale of the loss.

The gradients of a float16 network are often below its smallest number, 6e-8. The loss is therefore multiplied by
a scale, and the float32 gradients of the factors are divided by it. If they are not finite, the scale was too
large: the same mini-batch is repeated with a smaller one, so that no step is lost.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
_FIRST_SCALE = 2.0**16
_SMALLER = 2.0**4

# compute(scale): the loss without the scale, and the gradients of scale times the loss
Compute = Callable[[float], tuple[Tensor, Sequence[Tensor | None]]]


def autocast(network: Tensor) -> AbstractContextManager[object]:
    """Return the context in which a network is called for training, given one of its weights.

    It changes nothing for a network in float32.
    """
    if network.dtype not in HALF:
        return nullcontext()
    return torch.autocast(network.device.type, dtype=network.dtype)


class LossScale:
    """The scale of the loss in one piece of training. It is 1 unless the network computes in float16.

    Args:
        dtype: The type in which the network computes.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.value = _FIRST_SCALE if dtype == torch.float16 else 1.0

    def apply(self, compute: Compute, generator: torch.Generator) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return the loss and its gradients without the scale.

        Args:
            compute: Computes both at a scale. It is called again, with the same random numbers, while the gradients
                are not finite and the scale can be lowered.
            generator: The generator from which `compute` draws.
        """
        while True:
            before = generator.get_state() if self.value > 1 else None
            loss, gradients = compute(self.value)
            if before is None:
                return loss, gradients
            given = [gradient for gradient in gradients if gradient is not None]
            if not bool(loss.isfinite()) or all(bool(gradient.isfinite().all()) for gradient in given):
                for gradient in given:
                    gradient.div_(self.value)
                return loss, gradients
            self.value = max(1.0, self.value / _SMALLER)
            generator.set_state(before)
