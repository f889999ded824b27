"""Count denoiser evaluations: the measure of cost in [Du23] and in the records of this project."""

from types import TracebackType
from typing import Any

import torch

from fedaigc.diffusion.sampling.pipeline_call import Pipeline, denoiser


class DenoiserCount:
    """Counts forward passes of a pipeline's denoiser inside a `with` block.

    Attributes:
        calls: Forward passes of the network: one per step (FLUX with true guidance: two per step).
        samples: Latents that passed through the network. Classifier-free guidance doubles the samples, not
            the calls.
    """

    def __init__(self, pipe: Pipeline) -> None:
        self._network = denoiser(pipe)
        self.calls = 0
        self.samples = 0

    def __enter__(self) -> "DenoiserCount":
        self._hook = self._network.register_forward_pre_hook(self._count, with_kwargs=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()

    def _count(self, _: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        names = ("hidden_states", "sample", "x")
        latents: Any = (
            arguments[0] if arguments else next((options[n] for n in names if n in options), [None])
        )
        self.calls += 1
        # Z-Image takes a list of latents
        self.samples += len(latents)
