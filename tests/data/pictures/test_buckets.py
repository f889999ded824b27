"""Sizes of aspect buckets, and which of them a picture gets."""

import pytest

from fedaigc.data.pictures.buckets import bucket_sizes, nearest_bucket


@pytest.mark.parametrize(
    ("height", "width", "multiple"),
    [(64, 64, 16), (512, 512, 64), (1024, 1024, 64), (48, 64, 8), (768, 512, 64)],
)
def test_buckets_keep_to_the_pixels_of_the_model(height: int, width: int, multiple: int) -> None:
    sizes = bucket_sizes(height, width, multiple)
    assert (height, width) in sizes
    for tall, wide in sizes:
        assert tall % multiple == wide % multiple == 0
        assert 0.75 * height * width <= tall * wide <= height * width
    shapes = [wide / tall for tall, wide in sizes]
    assert shapes == sorted(set(shapes))
    assert shapes[0] < 0.7
    assert shapes[-1] > 1.4


def test_a_picture_gets_the_bucket_nearest_to_its_shape() -> None:
    sizes = bucket_sizes(512, 512, 64)
    assert nearest_bucket((600, 600), sizes) == (512, 512)
    tall, wide = nearest_bucket((4000, 3000), sizes)
    assert abs(wide / tall - 4 / 3) < 0.2
    assert nearest_bucket((3000, 4000), sizes) == (wide, tall)
    # beyond the last bucket, the last one
    assert nearest_bucket((9000, 1000), sizes) == sizes[-1]
    assert nearest_bucket((1000, 9000), sizes) == sizes[0]
