"""A family: a pipeline, what stands for its prompt, a size and further arguments of the call."""

from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

WORDS, WIDTH = 6, 32
FLOW = {"shift": 3.0}


@dataclass
class Family:
    """A pipeline, the arguments that stand for two prompts, and the plan's settings.

    Without `half`, the stock call fails in bfloat16 on a CPU; without `unguided`, at a guidance scale of 1.
    """

    pipe: Any
    prompt: dict[str, Any]
    other: dict[str, Any]
    side: int = 16
    guidance_scale: float = 4.0
    steps: int = 4
    arguments: dict[str, Any] = field(default_factory=dict)
    half: bool = True
    unguided: bool = True


def embeddings(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(shape or (1, WORDS, WIDTH), generator=torch.Generator().manual_seed(seed))


def by_embeddings(pipe: Any, name: str = "prompt_embeds", **options: Any) -> Family:
    """A family whose prompts are embeddings, with those of the empty prompt for guidance."""
    more = {key: options.pop(key) for key in ("masked", "width") if key in options}
    shape = (1, WORDS, more.get("width", WIDTH))

    def of(seed: int) -> dict[str, Any]:
        found: dict[str, Any] = {name: embeddings(seed, *shape), f"negative_{name}": embeddings(9, *shape)}
        if "masked" in more:
            mask = torch.ones(1, WORDS, dtype=more["masked"])
            ending = "_attention_mask" if name == "prompt_embeds" else "_mask"
            found |= {f"prompt{ending}": mask, f"negative_prompt{ending}": mask}
        return found

    return Family(pipe, of(1), of(2), **options)


def picture(seed: int, side: int = 16) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def prompted(pipe: Any, more: dict[str, Any] | None = None, **options: Any) -> Family:
    """A family with a prompt and with whatever `more` adds to it."""
    added = more or {}
    texts = ("an apple on a table", "a lemon near a bed")
    first, second = ({"prompt": text} | added for text in texts)
    return Family(pipe, first, second, **options)


def eighth_vae(channels: int = 4) -> Any:
    """A decoder of an eighth of the size."""
    vae: Any = diffusers.AutoencoderKL(
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=2,
    )
    return vae.eval()


def cast(prompt: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The same prompt with embeddings in another dtype."""

    def as_dtype(value: Any) -> Any:
        if isinstance(value, list):
            return [as_dtype(item) for item in value]
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return {key: as_dtype(value) for key, value in prompt.items()}
