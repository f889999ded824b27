"""The positions of the names in a plot: next to what they name, without covering it or each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

Offset = tuple[float, float]
STEPS = 16  # directions from a point to its name
FAR = (1.0, 1.7, 2.6, 4.0, 6.0, 9.0)  # distances, as multiples of the nearest one


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels.

    Attributes:
        x0: Left edge.
        y0: Lower edge.
        x1: Right edge.
        y1: Upper edge.
        owner: Number of the curve that the rectangle belongs to.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    owner: int = -1

    def moved(self, offset: Offset) -> "Box":
        """Return the rectangle moved by an offset."""
        x, y = offset
        return Box(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y, self.owner)

    def shared(self, other: "Box") -> float:
        """Return the area that both rectangles cover, in square pixels."""
        across = min(self.x1, other.x1) - max(self.x0, other.x0)
        along = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(across, 0.0) * max(along, 0.0)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Return heights from 0 to 1, at least `gap` apart, in the order of `wanted` and close to it.

    Names that would touch form a block around the mean of the wanted heights; blocks that touch merge. If the
    names do not fit, they start at 0 and exceed 1.
    """
    blocks: list[list[int]] = []

    def bottom(block: list[int]) -> float:
        extent = gap * (len(block) - 1)
        middle = sum(wanted[i] for i in block) / len(block)
        return min(max(middle - extent / 2, 0.0), max(1.0 - extent, 0.0))

    for i in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        blocks.append([i])
        while len(blocks) > 1 and bottom(blocks[-1]) < bottom(blocks[-2]) + gap * len(blocks[-2]):
            last = blocks.pop()
            blocks[-1] = blocks[-1] + last
    heights = {i: bottom(block) + gap * place for block in blocks for place, i in enumerate(block)}
    return [heights[i] for i in range(len(wanted))]


def nearest_free(
    name: Box, point: tuple[float, float], taken: Sequence[Box], inside: Box, nearest: float
) -> Offset:
    """Return how far to move `name` so that it covers nothing.

    The candidates are 16 directions and 6 distances, from `nearest` pixels on. The one with the least cost wins:
    1000 for each square pixel that covers something or lies outside of `inside`, 30 for each place where the
    leader to the point crosses a box of another owner, and the distance in pixels.

    Args:
        name: The box of the name, centred on `point`.
        point: The point that it names.
        taken: The boxes that the name must not cover.
        inside: The box in which the name should stay.
        nearest: The smallest distance in pixels.
    """
    width, height = name.x1 - name.x0, name.y1 - name.y0
    offsets = _around(width, height, nearest)
    others = np.array([(box.x0, box.y0, box.x1, box.y1) for box in taken]).reshape(-1, 4)
    foreign = others[[box.owner != name.owner for box in taken]]
    # axes: positions of the name, boxes, and, for the leader, points along it
    low = offsets[:, None, :] + np.array([name.x0, name.y0])
    high = offsets[:, None, :] + np.array([name.x1, name.y1])
    shared = np.minimum(high, others[:, 2:]) - np.maximum(low, others[:, :2])
    covered = shared.clip(0).prod(-1).sum(-1)
    within = np.minimum(high, (inside.x1, inside.y1)) - np.maximum(low, (inside.x0, inside.y0))
    covered += width * height - within.clip(0).prod(-1).sum(-1)
    leader = point + offsets[:, None, None, :] * np.linspace(0.1, 0.9, 9)[:, None]
    crossed = ((leader >= foreign[:, None, :2]) & (leader <= foreign[:, None, 2:])).all(-1).sum((1, 2))
    best = offsets[np.argmin(1000 * covered + 30 * crossed + np.hypot(*offsets.T))]
    return float(best[0]), float(best[1])


def line_boxes(
    points: Sequence[tuple[float, float]], owner: int, *, half: float = 2.0, step: float = 4.0
) -> list[Box]:
    """Return small boxes along a line through `points`, all in pixels, which a name must not cover."""
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(points):
        count = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / step))
        for i in range(count + 1):
            x, y = x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count
            boxes.append(Box(x - half, y - half, x + half, y + half, owner))
    return boxes


def _around(width: float, height: float, nearest: float) -> Float[np.ndarray, "places 2"]:
    angles = 2 * np.pi * np.arange(STEPS) / STEPS
    radii = np.array([(width / 2 + nearest * far, height / 2 + nearest * far) for far in FAR])
    return (radii[:, None, :] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)).reshape(-1, 2)
