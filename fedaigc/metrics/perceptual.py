"""CLIP score and LPIPS, for installations that have their weights: neither network is shipped.

This module downloads nothing. Do not use the CLIP score to rank models on Scenes at 64x64, because CLIP was
trained on photographs at 224x224. The judge (`metrics.judge`) was trained on Scenes.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn

from fedaigc.counting import counted
from fedaigc.data.pictures.rgb import rgb
from fedaigc.errors import UserError
from fedaigc.extras import require_extra

CLIP = "openai/clip-vit-base-patch16"
LPIPS_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}


class _ProjectedClip(nn.Module):
    """CLIP as torchmetrics 1.9 calls it: transformers 5 returns an output object, not the projection."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip, self.config = clip, clip.config

    def get_image_features(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return self.clip.get_image_features(pixels).pooler_output

    def get_text_features(
        self, tokens: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b d"]:
        return self.clip.get_text_features(tokens, mask).pooler_output


class _Cutting:
    """A CLIP processor that cuts long texts and keeps their end token, whose embedding is the text's.

    torchmetrics cuts after it, and so takes the embedding of some other token for the text's.
    """

    def __init__(self, processor: Any, limit: int) -> None:
        self._processor, self.limit = processor, limit
        self.tokenizer = processor.tokenizer

    def __call__(self, **inputs: Any) -> Any:
        cut = {"truncation": True, "max_length": self.limit} if "text" in inputs else {}
        return self._processor(**inputs, **cut)


class ClipScore:
    """How well an image fits its caption: max(100 cos(image embedding, text embedding), 0).

    torchmetrics scales by 100 where the paper scales by 2.5.

    References:
        J. Hessel, A. Holtzman, M. Forbes, R. Le Bras, Y. Choi, "CLIPScore: A Reference-free Evaluation Metric
        for Image Captioning", arXiv:2104.08718.
    """

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    @classmethod
    def load(cls, name: str | Path = CLIP) -> "ClipScore":
        """Load a CLIP model from a folder or, by its hub name, from the local Hugging Face cache.

        Raises:
            UserError: If neither contains it.
        """
        import transformers
        from torchmetrics.multimodal.clip_score import CLIPScore

        transformers.logging.set_verbosity_error()  # it logs advice on torchvision at every load
        transformers.logging.disable_progress_bar()
        try:
            clip = transformers.CLIPModel.from_pretrained(str(name), local_files_only=True)
            processor = transformers.CLIPProcessor.from_pretrained(str(name), local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the CLIP model {str(name)!r} is not available: expected the folder of a model, or a hub name in "
                f"the local cache; download it with `hf download {CLIP}`, or omit the CLIP score"
            ) from error
        model: Any = _ProjectedClip(clip.eval().requires_grad_(False))
        config: Any = clip.config
        cutting: Any = _Cutting(processor, config.text_config.max_position_embeddings)
        return cls(CLIPScore(lambda: (model, cutting)))

    def score(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        """Return one score per image, from 0 to 100.

        Of a caption with more tokens than the model reads, the beginning is compared; see `cut`.

        Raises:
            UserError: If the number of captions differs from the number of images.
        """
        _check_numbers(images, captions, "caption")
        scores = []
        for image, caption in zip(images, captions, strict=True):
            # the metric averages over its updates, so each score needs a single update
            self._metric.reset()
            with torch.inference_mode(), warnings.catch_warnings():
                # torchmetrics pads single captions: the length that the processor was saved with has no use
                warnings.filterwarnings("ignore", "`max_length` is ignored")
                self._metric.update(_bytes(image), caption)
                scores.append(float(self._metric.compute()))
        return scores

    def reads(self, caption: str) -> bool:
        """Return whether the model reads a caption of this length as a whole."""
        return len(self._metric.processor.tokenizer(caption)["input_ids"]) <= self.limit

    def cut(self, captions: Sequence[str]) -> list[int]:
        """Return the places of the captions of which the model reads the beginning only."""
        return [place for place, caption in enumerate(captions) if not self.reads(caption)]

    @property
    def limit(self) -> int:
        """The most tokens that the model reads, with those of start and end."""
        return self._metric.processor.limit


class Lpips:
    """How different two images look: distances of network features, weighted to match human judgement.

    References:
        R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang, "The Unreasonable Effectiveness of Deep Features
        as a Perceptual Metric", arXiv:1801.03924.
    """

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    @classmethod
    def load(cls, net: Literal["alex", "vgg", "squeeze"] = "alex") -> "Lpips":
        """Load LPIPS with an AlexNet (the authors' choice for comparisons), VGG-16 or SqueezeNet backbone.

        torchmetrics contains the weights of LPIPS. Those of the backbone come from torch's hub folder
        (TORCH_HOME).

        Raises:
            UserError: If torchvision or the weight file of the backbone is missing.
        """
        require_extra("perceptual", "LPIPS distances")
        import torchvision
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        url = getattr(torchvision.models, LPIPS_BACKBONES[net]).DEFAULT.url
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if not file.is_file():
            raise UserError(f"LPIPS with {net!r} needs {file}: download it from {url}, or omit LPIPS")
        return cls(LearnedPerceptualImagePatchSimilarity(net_type=net, normalize=True, reduction="none"))

    def distances(self, images: Sequence[Image.Image], references: Sequence[Image.Image]) -> list[float]:
        """Return one distance per pair, 0 for equal images.

        Raises:
            UserError: If the numbers of images and references differ, or if the sizes of a pair differ.
        """
        _check_numbers(images, references, "reference")
        found = []
        for number, (image, reference) in enumerate(zip(images, references, strict=True)):
            if image.size != reference.size:
                raise UserError(
                    f"picture {number} is {image.size}, its reference {reference.size}: draw both at the same size"
                )
            self._metric.reset()
            with torch.inference_mode():
                self._metric.update(_bytes(image)[None] / 255, _bytes(reference)[None] / 255)
                found.append(float(self._metric.compute()))
        return found


def _check_numbers(images: Sequence[Image.Image], others: Sequence[Any], name: str) -> None:
    if len(images) != len(others):
        raise UserError(
            f"{counted(len(images), 'picture')} and {counted(len(others), name)}: give one for each picture"
        )


def _bytes(image: Image.Image) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1)
