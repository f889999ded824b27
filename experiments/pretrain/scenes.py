"""Rendered scenes in memory, the input of the training stages."""

from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track

from fedaigc.data.scenes import Scene, draw_scenes
from fedaigc.data.sprites import TRAINED_STYLES


@dataclass(frozen=True)
class Pictures:
    """Scenes and their pixels: `pixels[i]` shows `scenes[i]`, uint8 [n, 3, 64, 64]."""

    scenes: list[Scene]
    pixels: torch.Tensor

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows' pixels as float32 in [-1, 1], channels last."""
        chosen = self.pixels[rows].float().div_(127.5).sub_(1)
        return chosen.to(memory_format=torch.channels_last)


def draw(
    n: int,
    seed: int,
    styles: tuple[str, ...] = TRAINED_STYLES,
    triples: list[tuple[str, str, str]] | None = None,
) -> Pictures:
    """Render `n` scenes."""
    scenes: list[Scene] = []
    pixels = torch.empty((n, 3, 64, 64), dtype=torch.uint8)
    drawn = draw_scenes(n, seed, styles=styles, triples=triples)
    for i, (scene, image) in enumerate(track(drawn, description="rendering", total=n)):
        scenes.append(scene)
        pixels[i] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return Pictures(scenes, pixels)
