"""Stage 4: a wider decoder for the fixed latents.

The encoder stays unchanged, so the denoiser need not be trained again; only the decoding of latents to pixels
becomes sharper.
"""

from pathlib import Path

import torch

from experiments.pretrain import loop, recipe
from experiments.pretrain.scenes import Pictures
from experiments.pretrain.vae import BATCH, LATENT_NOISE, edges
from fedaigc.rng import rng


def train(
    work: Path, autoencoder: recipe.Model, pictures: Pictures, *, steps: int, seed: int
) -> recipe.Model:
    """Train a decoder of DECODER_WIDTH channels on the frozen encoder's latents, with added noise."""
    model = recipe.vae(decoder_width=recipe.DECODER_WIDTH)
    model.encoder.load_state_dict(autoencoder.encoder.state_dict())
    model.register_to_config(scaling_factor=autoencoder.config.scaling_factor)
    model = model.to(memory_format=torch.channels_last)
    model.encoder.requires_grad_(False)

    def loss_of_step(step: int) -> torch.Tensor:
        generator = rng(seed, "decoder", step)
        rows = torch.randint(len(pictures.pixels), (BATCH,), generator=generator)
        pixels = pictures.batch(rows)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = model.encode(pixels).latents.float()
            # from zero to twice the noise of stage 1, because sampled latents differ from those of any picture
            strength = 2 * LATENT_NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator)
            noise = strength * torch.randn(latents.shape, generator=generator)
            decoded = model.decode(latents + noise).sample.float()
        error = decoded - pixels
        return error.abs().mean() + 2 * error.square().mean() + (edges(decoded) - edges(pixels)).abs().mean()

    loop.train(
        "decoder", work, {"decoder": model.decoder}, loss_of_step, steps=steps, peak=1.5e-3, weight_decay=0.0
    )
    return model.eval().requires_grad_(False)
