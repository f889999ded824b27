"""Stage 3: the denoiser and its text encoder, trained together in the autoencoder's latents."""

import json
from pathlib import Path

import torch
from rich.progress import track
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.pretrain import loop, recipe
from experiments.pretrain.scenes import Pictures
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.rng import numpy_rng, rng

BATCH = 32
DROPOUT = 0.1  # share of the captions, for classifier-free guidance
MIN_SNR_GAMMA = 5.0  # Hang et al., "Efficient diffusion training via min-SNR weighting", 2023


def encode(autoencoder: recipe.Model, pictures: Pictures, cache: Path) -> torch.Tensor:
    """Return the scaled latents of all pictures, float16 [n, 8, 16, 16]; kept in `cache` for resumed runs."""
    if cache.exists():
        latents: torch.Tensor = torch.load(cache, weights_only=True)
        if len(latents) == len(pictures.scenes):
            return latents
    chunks = []
    with torch.no_grad():
        for start in track(range(0, len(pictures.pixels), 64), description="encoding"):
            rows = torch.arange(start, min(start + 64, len(pictures.pixels)))
            chunk = autoencoder.encode(pictures.batch(rows)).latents
            chunks.append((chunk * autoencoder.config.scaling_factor).half())
    torch.save(torch.cat(chunks), cache)
    return torch.cat(chunks)


def train(work: Path, autoencoder: recipe.Model, pictures: Pictures, *, steps: int, seed: int) -> Pipeline:
    """Train with v-prediction (Salimans & Ho, 2022) and min-SNR weights; returns the whole pipeline."""
    words = recipe.tokenizer()
    encoder = recipe.text_encoder(words)
    denoiser = recipe.unet().to(memory_format=torch.channels_last)
    writer = recipe.CaptionWriter()
    latents = encode(autoencoder, pictures, work / "latents.pt")
    alphas_cumprod = recipe.scheduler().alphas_cumprod

    def loss_of_step(step: int) -> torch.Tensor:
        generator, random = rng(seed, "denoiser", step), numpy_rng(seed, "captions", step)
        rows = torch.randint(len(latents), (BATCH,), generator=generator)
        captions = [
            "" if random.random() < DROPOUT else writer.write(pictures.scenes[row], random)
            for row in rows.tolist()
        ]
        tokens = words(
            captions, padding="max_length", max_length=recipe.TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        # stratified over the batch: less variance than independent draws
        offsets = torch.rand(BATCH, generator=generator)
        timesteps = ((torch.arange(BATCH) + offsets) * (len(alphas_cumprod) / BATCH)).long()
        alpha = alphas_cumprod[timesteps].sqrt()[:, None, None, None]
        sigma = (1 - alphas_cumprod[timesteps]).sqrt()[:, None, None, None]
        noisy = (alpha * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
        # the backward pass of the fused attention kernel is slow at these small sizes
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            predicted = denoiser(noisy, timesteps, encoder(tokens)[0], return_dict=False)[0]
        velocity = alpha * noise - sigma * clean
        snr = (alpha / sigma).flatten().square()
        weights = snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1)
        return (weights * (predicted.float() - velocity).square().mean((1, 2, 3))).mean()

    loop.train("denoiser", work, {"unet": denoiser, "text": encoder}, loss_of_step, steps=steps, peak=1.2e-3)
    return recipe.pipeline(autoencoder, words, encoder.eval(), denoiser.eval())


def save(pipe: Pipeline, folder: Path) -> None:
    """Write an ordinary pipeline folder: UNet and VAE in float16, the small text encoder in float32.

    `from_pretrained` without arguments would mix dtypes if the whole folder were float16.
    """
    pipe.unet.half()
    pipe.vae.half()
    pipe.save_pretrained(folder)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    for file in folder.rglob("config.json"):
        # the path that a part was loaded from describes this machine, not the model
        values = json.loads(file.read_text())
        values.pop("_name_or_path", None)
        file.write_text(json.dumps(values, indent=2) + "\n")
