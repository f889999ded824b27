"""The primary endpoint: denoising loss on fixed (image, timestep, noise) triples of every client.

    L = (1 / M) sum_m mean over pixels of (f(x_t(m), t(m), c(m)) - target(m))^2

x_t and the target are those of `diffusion.training`, but no caption is dropped and all noise levels have equal
weight. The triples are the same for every strategy, seed and round, so that their random variation cancels in
differences. The evaluator does this outside of the federation: it reads the homes of the devices, and no
message contains any of it.
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
    """The triples that one client is evaluated on.

    Attributes:
        data: The encoded images and captions.
        rows: Row of `data` for each triple, [m].
        drawn: Position of the timestep in the sampler's timesteps, [m].
        noise: The noise, [m, c, h, w].
    """

    data: EncodedImages
    rows: Tensor
    drawn: Tensor
    noise: Tensor


class Evaluator:
    """Computes the losses of states on the triples of every client of a study.

    Args:
        pipe: The pipeline. The evaluator replaces its adapters.
        data: The images of each client.
        boundary_log_snr: The boundary t* as a log SNR; None for none.
        count: Triples per client.
        seed: Seed of the study's clients, the same for all runs.
        stage: The stage whose noise levels are evaluated.
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
        """Return the loss of a shared state on one client's triples; None stands for the untouched base model."""
        key = ("base" if shared is None else shared.hash(), client)
        if key not in self._known:
            put_adapters(self._pipe, shared, None)
            self._known[key] = self._loss(client)
        return self._known[key]

    def personal_loss(self, personal: Adapter | None, client: int) -> float:
        """Return the loss of a personal adapter on one client's triples of the personal stage."""
        put_adapters(self._pipe, None, personal)
        return self._loss(client)

    def forget(self) -> None:
        """Drop the cached losses of states that do not occur again."""
        self._known = {}

    def _loss(self, client: int) -> float:
        activate(self._pipe, self._stage)
        return mean_loss(self._pipe, self._sampler, self._triples[client])


def draw_triples(
    sampler: TimestepSampler, data: EncodedImages, count: int, generator: torch.Generator
) -> Triples:
    """Draw `count` triples: the images in turn, timesteps uniform over the stage, normal noise."""
    rows = torch.arange(count) % len(data)
    drawn = sampler.draw(count, generator)
    noise = torch.randn((count, *data.latents.shape[1:]), generator=generator)
    return Triples(data, rows, drawn, noise)


@torch.no_grad()
def mean_loss(pipe: "DiffusionPipeline", sampler: TimestepSampler, triples: Triples) -> float:
    """Return the loss of the pipeline with its current adapters."""
    network = next(denoiser(pipe).parameters())
    total = 0.0
    for start in range(0, len(triples.rows), _BATCH):
        chosen = slice(start, start + _BATCH)
        rows, drawn, noise = triples.rows[chosen], triples.drawn[chosen], triples.noise[chosen]
        clean = triples.data.latents[rows].float()
        text: Mapping[str, Tensor] = {
            name: embeds[rows].to(
                network.device, network.dtype if embeds.is_floating_point() else embeds.dtype
            )
            for name, embeds in triples.data.text.items()
        }
        noisy = sampler.noisy(clean, noise, drawn).to(network)
        answer = predict(pipe, noisy, sampler.timesteps[drawn].to(network.device), text)
        error = (answer.float().cpu() - sampler.target(clean, noise, drawn)) ** 2
        total += float(error.flatten(1).mean(1).double().sum())
    return total / len(triples.rows)
