"""Pixel-wise similarity of two images: MSE, PSNR and SSIM, computed by torchmetrics.

Use these scores if an image has a reference, such as the same task drawn alone, or the image before and after
a channel. Do not use them as a measure of image quality: two good images of one prompt share no pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fedaigc.counting import counted
from fedaigc.data.pictures.rgb import rgb
from fedaigc.errors import UserError

BATCH = 64
MIN_PIXELS = 11  # side length of SSIM's Gaussian window, sigma 1.5


@dataclass(frozen=True)
class PairQuality:
    """Scores of one image against its reference, on pixel values from 0 to 1.

    Attributes:
        mse: Mean squared error over pixels and channels.
        psnr_db: 10 log10(1 / mse) in dB, infinite for equal images.
        ssim: Structural similarity. The maximum is 1, for equal images.
    """

    mse: float
    psnr_db: float
    ssim: float


def image_quality(images: Sequence[Image.Image], references: Sequence[Image.Image]) -> list[PairQuality]:
    """Compare each image with the reference of the same index, and return the scores in this order.

    SSIM [Wang04] uses a Gaussian window (sigma 1.5, 11 x 11), k1 = 0.01, k2 = 0.03 and biased variances. It
    is averaged over channels and all pixels, with the border mirrored. Other implementations exclude the
    border.

    Raises:
        UserError: If the numbers of images and references differ, if the sizes of a pair differ, or if a side
            has fewer than 11 pixels.

    References:
        [Wang04] Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image Quality Assessment: From Error Visibility
        to Structural Similarity", IEEE Transactions on Image Processing 13(4), 2004.
    """
    if len(images) != len(references):
        raise UserError(
            f"{counted(len(images), 'picture')} and {counted(len(references), 'reference')}: give one reference for "
            "each picture"
        )
    found: list[PairQuality] = []
    batch: list[tuple[Image.Image, Image.Image]] = []
    for number, pair in enumerate(zip(images, references, strict=True)):
        _check_sizes(number, *pair)
        if batch and (len(batch) == BATCH or batch[0][0].size != pair[0].size):
            found += _compared(batch)
            batch = []
        batch.append(pair)
    return found + (_compared(batch) if batch else [])


def _check_sizes(number: int, image: Image.Image, reference: Image.Image) -> None:
    if image.size != reference.size:
        raise UserError(
            f"picture {number} is {image.width}x{image.height}, its reference "
            f"{reference.width}x{reference.height}: draw both at the same size"
        )
    if min(image.size) < MIN_PIXELS:
        raise UserError(
            f"picture {number} is {image.width}x{image.height}: SSIM needs at least {MIN_PIXELS} pixels per side"
        )


def _compared(pairs: list[tuple[Image.Image, Image.Image]]) -> list[PairQuality]:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    x, y = _unit_pixels([pair[0] for pair in pairs]), _unit_pixels([pair[1] for pair in pairs])
    mse = (x - y).square().mean((1, 2, 3))
    psnr = peak_signal_noise_ratio(x, y, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)  # a tuple is returned only with a full map
    rows = zip(mse.tolist(), psnr.tolist(), ssim.tolist(), strict=True)
    return [PairQuality(*row) for row in rows]


def _unit_pixels(images: list[Image.Image]) -> Float[Tensor, "b 3 h w"]:
    """Return pixels from 0 to 1, in double precision because SSIM subtracts nearly equal squares."""
    arrays = [np.asarray(rgb(image), dtype=np.float64) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255
