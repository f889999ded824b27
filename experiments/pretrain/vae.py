"""Stage 1: the autoencoder, on the trained styles."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from experiments.pretrain import loop, recipe
from experiments.pretrain.scenes import Pictures
from fedaigc.rng import rng

BATCH = 32
# noise on the latents in training: similar latents then decode to similar pixels, which the denoiser needs
LATENT_NOISE = 0.1


def edges(pixels: torch.Tensor) -> torch.Tensor:
    """Return the differences of neighbouring pixels, across and down."""
    return torch.cat(
        [
            (pixels[..., 1:] - pixels[..., :-1]).flatten(1),
            (pixels[..., 1:, :] - pixels[..., :-1, :]).flatten(1),
        ],
        1,
    )


def train(work: Path, pictures: Pictures, *, steps: int, seed: int) -> recipe.Model:
    """Train the autoencoder on `pictures`: L1, squared error and L1 of the edges; returns it in eval mode."""
    model = recipe.vae().to(memory_format=torch.channels_last)

    def loss_of_step(step: int) -> torch.Tensor:
        generator = rng(seed, "vae", step)
        rows = torch.randint(len(pictures.pixels), (BATCH,), generator=generator)
        pixels = pictures.batch(rows)
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encode(pixels).latents.float()
            noise = LATENT_NOISE * torch.randn(latents.shape, generator=generator)
            decoded = model.decode(latents + noise).sample.float()
        error = decoded - pixels
        outline = (edges(decoded) - edges(pixels)).abs().mean()
        return error.abs().mean() + 2 * error.square().mean() + outline + 1e-4 * latents.square().mean()

    loop.train("vae", work, {"vae": model}, loss_of_step, steps=steps, peak=1.5e-3, weight_decay=0.0)
    model.eval().requires_grad_(False)
    with torch.no_grad():
        latents = torch.cat(
            [model.encode(pictures.batch(torch.arange(i, i + 64))).latents for i in range(0, 2048, 64)]
        )
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    return model


def load(folder: Path) -> recipe.Model:
    """Load the trained autoencoder, ready to use."""
    model: recipe.Model = AutoencoderTiny.from_pretrained(folder)
    model = model.to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)
