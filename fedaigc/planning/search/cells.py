"""Cells: points divided by hyperplanes, so that the work on each cell is bounded.

Each cell is divided across the direction in which its points spread most, at the widest gap in the middle of it, so
that prompts of one scene stay together.
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
        along = vectors[rows] @ spread(vectors[rows])
        order = np.argsort(along, kind="stable")
        cut = widest_gap(along[order])
        waiting += [rows[order[cut:]], rows[order[:cut]]]
    return found


def spread(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """Return about the direction in which points spread most, by power iteration; its length is about 1."""
    centred = vectors - vectors.mean(0)
    direction = centred[int((centred**2).sum(1).argmax())]
    for _ in range(_ITERATIONS):
        direction = centred.T @ (centred @ direction)
        direction = direction / max(float(np.linalg.norm(direction)), 1e-300)
    return np.asarray(direction)


def widest_gap(along: Float[np.ndarray, " n"]) -> int:
    """Return how many of the ascending numbers lie below the widest gap in their middle half."""
    first = max(1, int(_MIDDLE * len(along)))
    last = max(first + 1, len(along) - first)
    gaps = np.diff(along)
    middle = gaps[first - 1 : last - 1]
    return first + int(middle.argmax()) if middle.max() > 0 else 1 + int(gaps.argmax())
