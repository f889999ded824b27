"""Images that a device keeps out of training, and the loss of a shared state on them."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fedaigc.diffusion.adapters.stages import SharedState, Stage, activate, install
from fedaigc.diffusion.encoding import EncodedImages
from fedaigc.diffusion.training import TimestepSampler, TrainingSettings, denoising_loss
from fedaigc.rng import rng

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# noise levels per image: the loss differs more between noise levels than between images
_DRAWS = 8


def split_images(
    data: EncodedImages, fraction: float, seed: int
) -> tuple[EncodedImages, EncodedImages | None]:
    """Divide the images of a device into those that it trains on and those that it keeps out.

    The division depends on the seed and the number of images alone. At least one image is kept out and at least
    one remains.

    Args:
        data: All images.
        fraction: Share of the images to keep out.
        seed: Seed of the device.

    Returns:
        The images to train on, and those kept out: None with a fraction of 0 or a single image.
    """
    if not fraction or len(data) < 2:
        return data, None
    count = min(max(1, round(fraction * len(data))), len(data) - 1)
    order = torch.randperm(len(data), generator=rng(seed, "held-out images"))
    return data.rows(order[count:].sort().values), data.rows(order[:count].sort().values)


@torch.no_grad()
def held_out_loss(
    pipe: "DiffusionPipeline",
    shared: SharedState,
    data: EncodedImages | None,
    settings: TrainingSettings,
    seed: int,
) -> dict[str, float]:
    """Return the mean loss of a shared state in the shared stage, with captions and with the same noise each time.

    Args:
        pipe: Pipeline, in which the state is installed.
        shared: The state.
        data: Images that were kept out of training; None if there are none.
        settings: Of the training, for the weighting of noise levels and the size of a batch.
        seed: Seed of the device, from which timesteps and noise follow.

    Returns:
        The loss as the metric `validation_loss`; nothing without images.
    """
    if data is None:
        return {}
    install(pipe, shared)
    activate(pipe, Stage.SHARED)
    sampler = TimestepSampler(pipe, Stage.SHARED, shared.boundary_log_snr)
    generator = rng(seed, "held-out noise")
    captioned = replace(settings, condition_dropout=0.0)
    losses: list[float] = []
    for rows in data.batches(settings.batch_size, _DRAWS):
        loss = denoising_loss(pipe, sampler, data, rows, generator, captioned)
        losses += [float(loss)] * len(rows)
    return {"validation_loss": sum(losses) / len(losses)}
