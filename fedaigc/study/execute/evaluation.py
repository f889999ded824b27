"""The primary endpoint: denoising loss on fixed (image, timestep, noise) triples of every client.

    L = (1 / M) sum_m mean over pixels of (f(x_t(m), t(m), c(m)) - target(m))^2

with x_t and the target of `diffusion.training`, but no caption dropped and all noise levels weighed alike.
The triples are the same for every strategy, seed and round, so that their luck cancels in differences. This
is the evaluator's work, beside the federation: it reads devices' homes, and nothing of it is in a message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.adapters.stages import Adapter, SharedState, Stage, activate
from fedaigc.diffusion.encoding import EncodedImages, predict
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.training import TimestepSampler
from fedaigc.rng import rng

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_BATCH = 16


@dataclass(frozen=True, eq=False)
class Triples:
    """What one client is evaluated on: rows of `data` [m], positions of timesteps [m], noise [m, c, h, w]."""

    data: EncodedImages
    rows: Tensor
    drawn: Tensor
    noise: Tensor


class Evaluator:
    """Losses of states on the triples of every client of a study.

    pipe: whose adapters are replaced. data: the pictures of each client. count: triples a client. seed: of
    the study's clients, the same for all runs.
    """

    def __init__(
        self,
        pipe: "DiffusionPipeline",
        data: Sequence[EncodedImages],
        *,
        boundary_log_snr: float | None,
        count: int,
        seed: int,
        stage: Stage = Stage.SHARED,
    ) -> None:
        self._pipe, self._stage = pipe, stage
        self._sampler = TimestepSampler(pipe, stage, boundary_log_snr)
        self._triples = [
            draw_triples(self._sampler, images, count, rng(seed, "triples", stage.value, client))
            for client, images in enumerate(data)
        ]
        self._known: dict[tuple[str, int], float] = {}

    def shared_loss(self, shared: SharedState | None, client: int) -> float:
        """The loss of a shared state on one client's triples; of the untouched base for None."""
        key = ("base" if shared is None else shared.hash(), client)
        if key not in self._known:
            put_adapters(self._pipe, shared, None)
            self._known[key] = self._loss(client)
        return self._known[key]

    def personal_loss(self, personal: Adapter | None, client: int) -> float:
        """The loss of a personal adapter on one client's triples of the personal stage."""
        put_adapters(self._pipe, None, personal)
        return self._loss(client)

    def forget(self) -> None:
        """Drop the losses of states that will not come back."""
        self._known = {}

    def _loss(self, client: int) -> float:
        activate(self._pipe, self._stage)
        return mean_loss(self._pipe, self._sampler, self._triples[client])


def draw_triples(
    sampler: TimestepSampler, data: EncodedImages, count: int, generator: torch.Generator
) -> Triples:
    """`count` triples: the images in turn, timesteps even over the stage, normal noise."""
    rows = torch.arange(count) % len(data)
    drawn = sampler.draw(count, generator)
    noise = torch.randn((count, *data.latents.shape[1:]), generator=generator)
    return Triples(data, rows, drawn, noise)


@torch.no_grad()
def mean_loss(pipe: "DiffusionPipeline", sampler: TimestepSampler, triples: Triples) -> float:
    """The loss of what the pipeline runs now."""
    network = next(denoiser(pipe).parameters())
    total = 0.0
    for start in range(0, len(triples.rows), _BATCH):
        chosen = slice(start, start + _BATCH)
        rows, drawn, noise = triples.rows[chosen], triples.drawn[chosen], triples.noise[chosen]
        clean = triples.data.latents[rows].float()
        text: Mapping[str, Tensor] = {
            name: embeds[rows].to(network) for name, embeds in triples.data.text.items()
        }
        noisy = sampler.noisy(clean, noise, drawn).to(network)
        answer = predict(pipe, noisy, sampler.timesteps[drawn].to(network.device), text)
        error = (answer.float().cpu() - sampler.target(clean, noise, drawn)) ** 2
        total += float(error.flatten(1).mean(1).double().sum())
    return total / len(triples.rows)
