"""How much each client of a round counts: the number of examples that averaging rules weigh it by.

    w_k = max(1, min(n_k, n_k', floor(ratio * median n')))

with n_k of the update, n_k' what the device showed when it was let in, and the median over all devices that
showed any. The number of pictures is the device's own word: this bounds what a lie can buy. At the default
ratio a device that lies from the start counts for at most ten median ones. A device that claims more than it
showed counts for what it showed, for its owner may have added pictures since.
"""

from collections.abc import Mapping
from statistics import median_low


def weight_limits(shown: Mapping[int, int], ratio: float | None) -> dict[int, int]:
    """The most that each client may count for, at least 1; ratio None: what it showed."""
    positive = [count for count in shown.values() if count > 0]
    if ratio is None or not positive:
        most = max(positive, default=1)
    else:
        most = int(min(ratio * median_low(positive), max(positive)))
    return {client: max(1, min(count, most)) for client, count in shown.items()}
