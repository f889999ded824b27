"""Distances between two sets of images as distributions, in the judge's features.

There are two distances, both computed by torchmetrics: the Frechet distance and the kernel distance (KID).
Their features are the judge's penultimate layer (64 wide), not Inception's, so their values are comparable
within this project only. Call them by the names in FRECHET and KERNEL, never FID.

Features are computed once (`judge_features`) and serve both distances and the floor. The evaluator computes
them from the galleries. They never enter a message.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fedaigc.errors import UserError
from fedaigc.metrics.judge import Judge
from fedaigc.rng import numpy_rng

FRECHET = "Frechet distance in the judge's features"
KERNEL = "kernel distance (KID) in the judge's features"
MIN_IMAGES = 1000
BATCH = 250


class _Given(nn.Module):
    """The feature extractor for torchmetrics when features are given instead of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return features


@dataclass(frozen=True)
class Floor:
    """The distance between two halves of one real set: no generator can be expected to be lower.

    Attributes:
        mean: Mean distance over the random splits.
        sd: Standard deviation over the random splits. The splits share images, so it is no standard error.
        n: Number of images in each half.
        splits: Number of random splits.
    """

    mean: float
    sd: float
    n: int
    splits: int


def judge_features(judge: Judge, images: Sequence[Image.Image]) -> Float[Tensor, "n 64"]:
    """Return the judge's penultimate layer, one row per image, in double precision for sums over many rows.

    Raises:
        UserError: If there are no images.
    """
    if not images:
        raise UserError("no pictures to compare: is the gallery empty?")
    batches = [judge.features(images[i : i + BATCH]).double() for i in range(0, len(images), BATCH)]
    return torch.cat(batches)


def frechet_distance(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], *, min_images: int = MIN_IMAGES
) -> float:
    """Return the squared Frechet distance of the Gaussians fitted to two sets of features:

        |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), S with n - 1 in the denominator.

    The estimate is biased upwards, and more so for smaller n. Compare values at equal n only, here and across
    a table, and report `real_floor` at the same n with them.

    Args:
        real: Features [n, d] of the real images.
        generated: Features [n, d] of the generated images.
        min_images: The smallest n that is accepted.

    Raises:
        UserError: If the sets differ in size, have fewer than `min_images` rows, or are not finite.

    References:
        M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler, S. Hochreiter, "GANs Trained by a Two Time-Scale
        Update Rule Converge to a Local Nash Equilibrium", arXiv:1706.08500.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(real, generated, min_images)
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    # rounding can make the distance of equal sets slightly negative
    return max(float(metric.compute()), 0.0)


def kernel_distance(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], *, min_images: int = MIN_IMAGES
) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy with k(x, y) = (x.y / d + 1)^3:

        mean of k(x_i, x_j), i != j, plus the same of y, minus 2 mean of k(x_i, y_j).

    All images form a single subset. The default of torchmetrics is 100 random subsets, which adds noise, and
    whose standard deviation is no standard error. The estimate is below zero for sets that are closer than
    chance. For equal sets it is below zero instead of zero, because the pairs i = j are left out on one side
    only.

    Args:
        real: Features [n, d] of the real images.
        generated: Features [n, d] of the generated images.
        min_images: The smallest n that is accepted.

    Raises:
        UserError: If the sets differ in size, have fewer than `min_images` rows, or are not finite.

    References:
        M. Binkowski, D. Sutherland, M. Arbel, A. Gretton, "Demystifying MMD GANs", arXiv:1801.01401.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check(real, generated, min_images)
    with warnings.catch_warnings():  # it warns about the memory of the features, which already exist
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=1, subset_size=len(real))
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    # it permutes the rows with torch's global generator, whose state must not change
    with torch.random.fork_rng(devices=[]):
        mean, _ = metric.compute()
    return float(mean)


def real_floor(
    real: Float[Tensor, "n d"],
    distance: Callable[..., float] = frechet_distance,
    *,
    seed: int = 0,
    splits: int = 10,
    min_images: int = MIN_IMAGES,
) -> Floor:
    """Return the distance between random halves of `real`.

    Args:
        real: Features of 2n real images, to obtain the floor for tables at n.
        distance: `frechet_distance` or `kernel_distance`.
        seed: Seed of the splits.
        splits: Number of random splits.
        min_images: The smallest accepted size of a half.

    Raises:
        UserError: If a half has fewer than `min_images` rows.
    """
    half = len(real) // 2
    found = []
    for split in range(splits):
        order = torch.from_numpy(numpy_rng(seed, "floor", split).permutation(len(real)))
        first, second = real[order[:half]], real[order[half : 2 * half]]
        found.append(distance(first, second, min_images=min_images))
    return Floor(float(np.mean(found)), float(np.std(found, ddof=1)) if splits > 1 else 0.0, half, splits)


def _check(real: Tensor, generated: Tensor, min_images: int) -> None:
    if len(real) != len(generated):
        raise UserError(
            f"{len(real)} real and {len(generated)} generated pictures: the distance depends on the number, "
            "so give equally many of both"
        )
    if len(real) < max(min_images, 2):
        raise UserError(
            f"{len(real)} pictures per set: expected at least {max(min_images, 2)}; draw more, or lower "
            "min_images and report this with the distance"
        )
    for features, name in ((real, "real"), (generated, "generated")):
        broken = int((~features.isfinite().all(1)).sum())
        if broken:
            raise UserError(
                f"the features of {broken} of {len(features)} {name} pictures are not finite (NaN or infinite): check "
                "the pictures and the network of the features"
            )
