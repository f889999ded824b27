"""Bounds on the weight of each client, the number of examples that averaging rules weigh it by.

The weight of client k is

    w_k = max(1, min(n_k, n_k', floor(ratio * median n')))

where

    n_k     the number of examples in the update
    n_k'    the number of images that the device reported when it was admitted

and the median is over all devices that reported any image. Devices report these numbers themselves, so this bounds
the effect of a false report: at the default ratio, a device that lies from the start counts for at most ten median
devices. A device that trained on more images than it reported counts with the reported number, and is not refused,
because its owner may have added images since.
"""

from collections.abc import Mapping
from statistics import median_low


def weight_limits(shown: Mapping[int, int], ratio: float | None) -> dict[int, int]:
    """Return the largest weight of each client, at least 1.

    Args:
        shown: Reported number of images by client.
        ratio: The largest multiple of the median. None sets no limit relative to the median.
    """
    positive = [count for count in shown.values() if count > 0]
    if ratio is None or not positive:
        most = max(positive, default=1)
    else:
        most = int(min(ratio * median_low(positive), max(positive)))
    return {client: max(1, min(count, most)) for client, count in shown.items()}
