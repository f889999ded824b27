import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedaigc.data.scenes import draw_scenes
from fedaigc.errors import UserError
from fedaigc.metrics.distribution import frechet_distance, judge_features, kernel_distance, real_floor
from fedaigc.metrics.judge import Judge


def with_moments(n: int, mean: list[float], variances: list[float], seed: int) -> Tensor:
    """n rows whose sample mean and sample covariance are exactly `mean` and diag(variances)."""
    raw = np.random.default_rng(seed).normal(size=(n, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw.T))).T
    return torch.from_numpy(white * np.sqrt(variances) + mean)


def gaussian(n: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, 1, size=(n, 4)))


def test_frechet_of_two_gaussians_equals_the_closed_form() -> None:
    """Diagonal covariances: |mu_1 - mu_2|^2 + sum (sd_1 - sd_2)^2.

    Means (0, 0) and (3, 4): 25. Deviations (1, 2) and (3, 5): 4 + 9 = 13. Together 38.
    """
    first = with_moments(50, [0, 0], [1, 4], seed=0)
    second = with_moments(50, [3, 4], [9, 25], seed=1)
    assert frechet_distance(first, second, min_images=50) == pytest.approx(38)


def test_frechet_of_correlated_gaussians_equals_scipys_square_root() -> None:
    from scipy.linalg import sqrtm

    random = np.random.default_rng(2)
    x, y = random.normal(size=(60, 5)) @ random.normal(size=(5, 5)), random.normal(size=(60, 5)) + 0.3
    s, t = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    found = frechet_distance(torch.from_numpy(x), torch.from_numpy(y), min_images=60)
    assert found == pytest.approx(expected)


def test_kernel_distance_by_hand() -> None:
    """One feature, x = (0, 1), y = (1, 2), k(a, b) = (ab + 1)^3.

    x against x, off the diagonal: 1. y against y: (2 + 1)^3 = 27. x against y: 1, 1, 8, 27, mean 37/4.
    Together 1 + 27 - 2 x 37/4 = 9.5.
    """
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    assert kernel_distance(x, y, min_images=2) == pytest.approx(9.5)


def test_identical_sets_are_no_distance_apart() -> None:
    real = gaussian(1000, 0)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    # the pairs i = j are left out on one side only: 2 (mean of k(x, y), x != y, - mean of k(x, x)) / n
    assert -0.05 < kernel_distance(real, real) < 0


def test_kernel_distance_is_unbiased_and_frechet_distance_is_not() -> None:
    """200 pairs of equal distributions, two-sided: the mean of KID lies within 4 standard errors of 0."""
    kernel = [
        kernel_distance(gaussian(40, 2 * i), gaussian(40, 2 * i + 1), min_images=40) for i in range(200)
    ]
    assert abs(np.mean(kernel)) < 4 * np.std(kernel, ddof=1) / np.sqrt(len(kernel))
    assert min(kernel) < 0 < max(kernel)
    few = np.mean(
        [frechet_distance(gaussian(40, i), gaussian(40, 999 - i), min_images=40) for i in range(50)]
    )
    many = np.mean(
        [frechet_distance(gaussian(400, i), gaussian(400, 999 - i), min_images=40) for i in range(50)]
    )
    assert few > 5 * many > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_the_order_of_pictures_and_of_sets_does_not_matter(seed: int, shift: float) -> None:
    real, generated = gaussian(30, seed), gaussian(30, seed + 1, shift)
    random = np.random.default_rng(seed)
    for distance in (frechet_distance, kernel_distance):
        value = distance(real, generated, min_images=30)
        shuffled = distance(real[random.permutation(30)], generated[random.permutation(30)], min_images=30)
        assert shuffled == pytest.approx(value, rel=1e-9, abs=1e-9)
        assert distance(generated, real, min_images=30) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_torchs_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    kernel_distance(gaussian(20, 0), gaussian(20, 1), min_images=20)
    assert torch.get_rng_state().equal(before)


def test_unequal_and_small_sets_are_refused_unless_the_caller_lowers_the_bar() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(UserError, match="1000 real and 999 generated pictures"):
            distance(gaussian(1000, 0), gaussian(999, 1))
        with pytest.raises(UserError, match="999 pictures per set: expected at least 1000"):
            distance(gaussian(999, 0), gaussian(999, 1))
        with pytest.raises(UserError, match="at least 2"):
            distance(gaussian(1, 0), gaussian(1, 1), min_images=0)
    with pytest.raises(UserError, match="999 pictures"):
        real_floor(gaussian(1999, 0))
    with pytest.raises(UserError, match="no pictures"):
        judge_features(Judge.load(), [])


def test_another_style_lies_far_above_the_floor_of_real_pictures() -> None:
    judge = Judge.load()
    real = judge_features(judge, [image for _, image in draw_scenes(300, seed=1, styles=("noto",))])
    other = judge_features(judge, [image for _, image in draw_scenes(150, seed=2, styles=("flat",))])
    for distance in (frechet_distance, kernel_distance):
        floor = real_floor(real, distance, seed=0, splits=4, min_images=150)
        assert (floor.n, floor.splits) == (150, 4)
        assert real_floor(real, distance, seed=0, splits=4, min_images=150) == floor
        far = distance(real[:150], other, min_images=150)
        assert far > abs(floor.mean) + 20 * floor.sd


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_an_error(value: float) -> None:
    broken = gaussian(20, 0)
    broken[3, 1] = value
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(UserError, match="features of 1 of 20 generated pictures are not finite"):
            distance(gaussian(20, 1), broken, min_images=20)
        with pytest.raises(UserError, match="features of 1 of 20 real pictures"):
            distance(broken, gaussian(20, 1), min_images=20)
