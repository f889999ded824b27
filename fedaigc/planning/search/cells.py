"""Cells: points divided by hyperplanes, so that the work on each cell is bounded.

Each cell is divided across the direction in which its points spread most, at the widest gap in the middle of it. Prompts
of one scene then stay together.
"""

import numpy as np
from jaxtyping import Float, Int

_MIDDLE = 0.25
_ITERATIONS = 4


def cells(vectors: Float[np.ndarray, "n d"], most: int) -> list[Int[np.ndarray, " m"]]:
    """Return the rows of each cell; the order of the rows decides nothing but the order of the answer.

    Args:
        vectors: The points, all different.
        most: The most points of a cell.
    """
    waiting, found = [np.arange(len(vectors))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            found.append(rows)
            continue
        along = _along(vectors[rows])
        order = np.argsort(along, kind="stable")
        first = max(1, int(_MIDDLE * len(rows)))
        last = max(first + 1, len(rows) - first)
        gaps = np.diff(along[order[first - 1 : last]])
        cut = first + int(gaps.argmax())
        waiting += [rows[order[cut:]], rows[order[:cut]]]
    return found


def _along(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """Return the coordinate of each point in the direction of their largest spread, by power iteration."""
    centred = vectors - vectors.mean(0)
    direction = centred[int((centred**2).sum(1).argmax())]
    for _ in range(_ITERATIONS):
        direction = direction / max(float(np.linalg.norm(direction)), 1e-300)
        direction = centred.T @ (centred @ direction)
    return np.asarray(centred @ direction)
