"""How far a set of pictures is from another as a distribution, in the judge's features.

Two distances, both by torchmetrics: the Frechet distance and the kernel distance (KID). Their features are
the judge's penultimate layer (64 wide), not Inception's, so their numbers compare within this project only:
call them what FRECHET and KERNEL say, never FID.

Features are computed once (`judge_features`) and serve both distances and the floor. They are read out of
the galleries by the evaluator and never enter a message.
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
    """The feature extractor for torchmetrics where the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return features


@dataclass(frozen=True)
class Floor:
    """A distance between two halves of the same real set: what no generator can be expected to beat.

    mean and sd over `splits` random splits into n and n. The splits share pictures, so sd is no standard
    error.
    """

    mean: float
    sd: float
    n: int
    splits: int


def judge_features(judge: Judge, images: Sequence[Image.Image]) -> Float[Tensor, "n 64"]:
    """The judge's penultimate layer, one row a picture, in double precision for sums over many."""
    if not images:
        raise UserError("no pictures to compare: is the gallery empty?")
    batches = [judge.features(images[i : i + BATCH]).double() for i in range(0, len(images), BATCH)]
    return torch.cat(batches)


def frechet_distance(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], *, min_images: int = MIN_IMAGES
) -> float:
    """The squared Frechet distance of the Gaussians fitted to two sets of features:

        |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), S with n - 1 in the denominator.

    It is biased upwards, the more so the smaller n, so compare at equal n only, here and across a table, and
    show `real_floor` at the same n beside it.

    Source: M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler, S. Hochreiter, "GANs Trained by a Two
    Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv:1706.08500.
    Raises UserError when the sets differ in size or have fewer than `min_images`.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(real, generated, min_images)
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    # rounding puts the distance of equal sets a little below zero
    return max(float(metric.compute()), 0.0)


def kernel_distance(
    real: Float[Tensor, "n d"], generated: Float[Tensor, "m d"], *, min_images: int = MIN_IMAGES
) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy with k(x, y) = (x.y / d + 1)^3:

        mean of k(x_i, x_j), i != j, plus the same of y, minus 2 mean of k(x_i, y_j).

    One subset, of all pictures: torchmetrics' default is 100 random subsets, which adds noise and whose
    standard deviation is no standard error. Below zero for sets that are closer than chance. For equal
    sets it is below zero, not zero, because the pairs i = j are left out on one side only.

    Source: M. Binkowski, D. Sutherland, M. Arbel, A. Gretton, "Demystifying MMD GANs", arXiv:1801.01401.
    Raises UserError when the sets differ in size or have fewer than `min_images`.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check(real, generated, min_images)
    with warnings.catch_warnings():  # of the memory for the features, which are here already
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=1, subset_size=len(real))
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    # it permutes the rows by torch's global generator, which is not ours to move
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
    """The distance of real pictures from real ones: `real` split at random into two halves, `splits` times.

    Pass 2n pictures to get the floor for tables at n. `distance` is `frechet_distance` or `kernel_distance`.
    Raises UserError when a half has fewer than `min_images`.
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
            f"{len(real)} real pictures against {len(generated)}: the distance depends on the number, "
            "so give as many of both"
        )
    if len(real) < max(min_images, 2):
        raise UserError(
            f"{len(real)} pictures a set: expected at least {max(min_images, 2)}; draw more, or lower "
            "min_images and say so beside the number"
        )
