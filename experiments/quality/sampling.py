"""Draw many pictures with the stock pipeline in batches, each from its own noise."""

from collections.abc import Sequence

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.rng import rng

BATCH = 8
# progress goes to stderr, JSON to stdout
PROGRESS_CONSOLE = Console(stderr=True)


def draw(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    num_inference_steps: int = 11,
    guidance_scale: float = 5.0,
    label: str = "drawing",
) -> list[Image.Image]:
    """Draw one picture per prompt; picture i depends on (prompt i, seed i) alone, up to batch rounding."""
    images: list[Image.Image] = []
    for start in track(range(0, len(prompts), BATCH), description=label, console=PROGRESS_CONSOLE):
        rows = range(start, min(start + BATCH, len(prompts)))
        noise = torch.cat(
            [
                torch.randn((1, pipe.unet.config.in_channels, 16, 16), generator=rng(seeds[i], "noise"))
                for i in rows
            ]
        )
        images += pipe(
            [prompts[i] for i in rows],
            latents=noise,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        ).images
    return images


def one_thread() -> None:
    """Use one thread, which makes results reproducible and uses two cores best with two processes."""
    torch.set_num_threads(1)
