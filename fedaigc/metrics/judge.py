"""An independent judge for images of Scenes: it classifies object, place and style, or none.

It was trained separately from the diffusion model, on rendered scenes, on their reconstructions by the
autoencoder, and against images that have an object's colours but not its shape
(experiments/pretrain/judge.py). Its penultimate layer (64 wide) is the feature space of the project's Frechet
distance.

Do not use it on other images than those of Scenes, because it knows nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fedaigc import assets
from fedaigc.data.pictures.rgb import rgb
from fedaigc.data.scene_words import OBJECTS, PLACES
from fedaigc.data.sprites import STYLES

NONE = "none"
OBJECT_LABELS = (*OBJECTS, NONE)
PLACE_LABELS = (*PLACES, NONE)
FEATURES = 64
PIXELS = 64


def _block(before: int, after: int, stride: int = 1, kernel: int = 3) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(8, after), nn.SiLU()]


class JudgeNet(nn.Module):
    """A small convolutional network with one head each for object, place and style, and 1.4 M weights."""

    def __init__(self) -> None:
        super().__init__()
        # the first layer halves the image: full resolution costs most of the time and adds little
        layers = _block(3, 48, stride=2, kernel=5) + _block(48, 64)
        for before, after in ((64, 128), (128, 192), (192, 192)):
            layers += _block(before, after, stride=2) + _block(after, after)
        self.trunk = nn.Sequential(*layers)
        self.features = nn.Sequential(nn.Linear(2 * 192, FEATURES), nn.SiLU())
        self.object_head = nn.Linear(FEATURES, len(OBJECT_LABELS))
        self.place_head = nn.Linear(FEATURES, len(PLACE_LABELS))
        self.style_head = nn.Linear(FEATURES, len(STYLES))

    def embed(self, pixels: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b 64"]:
        """Return the penultimate layer for pixels in [-1, 1]."""
        maps = self.trunk(pixels)
        return self.features(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1))

    def forward(
        self, pixels: Float[Tensor, "b 3 64 64"]
    ) -> tuple[Float[Tensor, "b objects"], Float[Tensor, "b places"], Float[Tensor, "b styles"]]:
        """Return logits over OBJECT_LABELS, PLACE_LABELS and STYLES."""
        features = self.embed(pixels)
        return self.object_head(features), self.place_head(features), self.style_head(features)


@dataclass(frozen=True)
class Verdict:
    """The judge's classification of one image.

    Attributes:
        object: The most probable label of OBJECT_LABELS.
        place: The most probable label of PLACE_LABELS.
        style: The most probable style.
        object_probabilities: Probability of every object label.
        place_probabilities: Probability of every place label.
        style_probabilities: Probability of every style.
    """

    object: str
    place: str
    style: str
    object_probabilities: dict[str, float]
    place_probabilities: dict[str, float]
    style_probabilities: dict[str, float]


def pixels_of(images: Sequence[Image.Image]) -> Float[Tensor, "b 3 64 64"]:
    """Return images as float32 in [-1, 1]. Images of another size than 64x64 are resized."""
    arrays = [
        np.array(rgb(image).resize((PIXELS, PIXELS), Image.Resampling.BOX), dtype=np.float32)
        for image in images
    ]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1


class Judge:
    """The trained judge, with frozen weights."""

    def __init__(self, net: JudgeNet) -> None:
        self.net = net.eval().requires_grad_(False)

    @classmethod
    def load(cls) -> "Judge":
        """Load the judge that ships with the package."""
        from safetensors.torch import load_file

        net = JudgeNet()
        weights = load_file(assets.path("judge.safetensors"))
        net.load_state_dict({key: value.float() for key, value in weights.items()})
        return cls(net)

    def score(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """Return one verdict per image."""
        if not images:
            return []
        with torch.inference_mode():
            heads = [logits.softmax(1).tolist() for logits in self.net(pixels_of(images))]
        verdicts = []
        for rows in zip(*heads, strict=True):
            odds = [
                dict(zip(labels, row, strict=True))
                for labels, row in zip((OBJECT_LABELS, PLACE_LABELS, STYLES), rows, strict=True)
            ]
            thing, place, style = (max(table, key=table.__getitem__) for table in odds)
            verdicts.append(Verdict(thing, place, style, odds[0], odds[1], odds[2]))
        return verdicts

    def features(self, images: Sequence[Image.Image]) -> Float[Tensor, "b 64"]:
        """Return the activations of the penultimate layer, for distribution distances."""
        with torch.inference_mode():
            return self.net.embed(pixels_of(images))
