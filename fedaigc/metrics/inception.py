"""Features of Inception-v3, as FID and KID are usually computed: neither the network nor its weights are shipped.

This module downloads nothing. The weights are those of torch-fidelity, ported from TensorFlow's.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fedaigc.data.pictures.rgb import rgb
from fedaigc.errors import UserError

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"
FEATURES = 2048


def weights_file(path: Path | None = None) -> Path:
    """Return the file of the weights: `path`, or the one in torch's hub folder (TORCH_HOME).

    Raises:
        UserError: If it does not exist.
    """
    file = path if path is not None else Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if not file.is_file():
        raise UserError(
            f"FID and KID in Inception's features need {file}: download it from {URL}, or name the file where it is "
            "(evaluation.inception_weights in a study); in Python, `features` also takes a function of your own"
        )
    return file


class InceptionFeatures:
    """The 2048 features of the last pooling of Inception-v3, for distances between sets of images."""

    def __init__(self, network: Any) -> None:
        self._network = network

    @classmethod
    def load(cls, path: Path | None = None) -> "InceptionFeatures":
        """Load the network.

        Args:
            path: File of the weights; None: the one in torch's hub folder.

        Raises:
            UserError: If torch-fidelity or the weights are missing, or the file holds something else.
        """
        file = weights_file(path)
        if importlib.util.find_spec("torch_fidelity") is None:
            raise UserError("Inception's features need torch-fidelity: run `pip install torch-fidelity`")
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            # torch-fidelity would run code that a file holds: this load refuses such a file
            torch.load(file, map_location="cpu", weights_only=True)
            network = NoTrainInceptionV3("inception-v3-compat", [str(FEATURES)], str(file))
        except Exception as error:
            text = str(error).strip().splitlines()
            raise UserError(
                f"{file} does not hold the weights of Inception ({text[0] if text else type(error).__name__:.100}): "
                f"download it again from {URL}"
            ) from None
        return cls(network.requires_grad_(False))

    def __call__(self, images: Sequence[Image.Image]) -> Float[Tensor, "n 2048"]:
        """Return one row per image; images of different sizes are computed one by one."""
        found = []
        with torch.inference_mode():
            for image in images:
                pixels = torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1)
                found.append(self._network(pixels[None]))
        return torch.cat(found)
