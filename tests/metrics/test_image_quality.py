import math

import numpy as np
import pytest
from PIL import Image

from fedaigc.data.scenes import draw_scenes
from fedaigc.errors import UserError
from fedaigc.metrics.image_quality import BATCH, image_quality


def grey(level: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def test_two_grey_pictures_by_hand() -> None:
    """Levels 51 and 102 of 255 are 0.2 and 0.4: mse 0.04, psnr 10 log10(25) = 13.979 dB.

    Flat pictures have no variance, so ssim = (2 x 0.2 x 0.4 + c1) / (0.2^2 + 0.4^2 + c1), c1 = 0.0001:
    0.1601 / 0.2001 = 0.80010.
    """
    (quality,) = image_quality([grey(51)], [grey(102)])
    assert quality.mse == pytest.approx(0.04)
    assert quality.psnr_db == pytest.approx(13.9794, abs=1e-4)
    assert quality.ssim == pytest.approx(0.1601 / 0.2001)


def test_one_wrong_channel_of_a_quarter_counts_a_twelfth() -> None:
    """Red is 1 instead of 0 in a quarter of the pixels: mse 1/4 x 1/3 = 1/12, psnr 10 log10(12) dB."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :8, 0] = 255
    (quality,) = image_quality([Image.fromarray(pixels)], [grey(0)])
    assert quality.mse == pytest.approx(1 / 12)
    assert quality.psnr_db == pytest.approx(10 * math.log10(12), abs=1e-5)


def test_equal_pictures_are_perfect_and_more_noise_is_worse() -> None:
    scenes = [image for _, image in draw_scenes(3, seed=0)]
    for quality in image_quality(scenes, scenes):
        assert quality.mse == 0
        assert quality.psnr_db == math.inf
        assert quality.ssim == pytest.approx(1)
    random = np.random.default_rng(0)
    noise = random.normal(size=(64, 64, 3))
    noisy = [
        Image.fromarray(np.clip(np.asarray(scenes[0]) + scale * noise, 0, 255).astype(np.uint8))
        for scale in (5, 20, 60)
    ]
    found = image_quality(noisy, [scenes[0]] * 3)
    assert [q.mse for q in found] == sorted(q.mse for q in found)
    assert [q.psnr_db for q in found] == sorted((q.psnr_db for q in found), reverse=True)
    assert [q.ssim for q in found] == sorted((q.ssim for q in found), reverse=True)


def test_pairs_keep_their_order_over_sizes_and_batches() -> None:
    levels = [i % 200 for i in range(BATCH + 3)]
    sizes = [(16, 16) if i % 50 else (20, 12) for i in range(BATCH + 3)]
    images = [grey(level, size) for level, size in zip(levels, sizes, strict=True)]
    found = image_quality(images, [grey(0, size) for size in sizes])
    assert [q.mse for q in found] == pytest.approx([(level / 255) ** 2 for level in levels])


def test_pairs_that_do_not_fit_are_refused() -> None:
    assert image_quality([], []) == []
    with pytest.raises(UserError, match="1 picture and 2 references"):
        image_quality([grey(0)], [grey(0)] * 2)
    with pytest.raises(UserError, match="picture 0 is 16x16, its reference 20x16"):
        image_quality([grey(0)], [grey(0, (20, 16))])
    with pytest.raises(UserError, match="needs at least 11 pixels"):
        image_quality([grey(0, (10, 16))], [grey(0, (10, 16))])
