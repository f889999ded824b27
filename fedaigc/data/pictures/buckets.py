"""Aspect buckets: sizes of about the same number of pixels, of which a picture gets the one nearest to its shape."""

import math
from collections.abc import Sequence

# long side to short side, of what cameras and screens give
_RATIOS = (1, 4 / 3, 3 / 2, 16 / 9, 2)


def bucket_sizes(height: int, width: int, multiple: int) -> list[tuple[int, int]]:
    """Return the sizes of the buckets of a model, as heights and widths in pixels, from tall to wide.

    None has more pixels than the model's size, which is one of them.

    Args:
        height: Height in pixels at which the model is trained.
        width: Width in pixels at which the model is trained.
        multiple: Sides are multiples of this.
    """
    area = height * width
    found = {(height, width)}
    for ratio in _RATIOS:
        short = max(1, round(math.sqrt(area / ratio) / multiple)) * multiple
        long = area // short // multiple * multiple
        # rounding may leave little of a small size
        if long and short * long >= area * 3 / 4:
            found |= {(short, long), (long, short)}
    return sorted(found, key=lambda size: size[1] / size[0])


def nearest_bucket(size: tuple[int, int], buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the bucket that cuts off the least of a picture.

    Args:
        size: Width and height of the picture, as Pillow gives them.
        buckets: Heights and widths.
    """
    shape = math.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[1] / bucket[0]) - shape))
