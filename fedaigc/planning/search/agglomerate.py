"""Merging blocks of a forest, best score first, and improving what came out.

Scores are gain / extra^power. A small power takes the large savings first, a large one the cheap merges of near points.
"""

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from fedaigc.planning.search.forest import Forest

NEIGHBOURS = 8
_POWERS = (0.3, 0.6, 1.0)
_MOST_POINTS = 12


def agglomerate(
    forest: Forest,
    edges: Iterable[tuple[int, int]],
    power: float,
    noise: Sequence[float] | None = None,
    last: int | None = None,
) -> None:
    """Merge along edges until no merge is possible.

    Args:
        forest: The forest.
        edges: Pairs of points whose blocks may merge.
        power: Power of the scores.
        noise: Factors of the scores, drawn by number of the edge; None for none.
        last: The last rung to merge at; None for the deepest.
    """
    last = len(forest.blocks) - 1 if last is None else last
    heap: list[tuple[float, int, int, int, int, int, int]] = []
    best_merge = forest.best_merge
    seen_pairs: set[tuple[int, int]] = set()

    def entry(number: int, one: int, other: int) -> tuple[float, int, int, int, int, int, int] | None:
        one_tree, other_tree = forest.changes[one], forest.changes[other]
        if one_tree != other_tree:
            # one way between two trees is enough
            pair = (one_tree, other_tree) if one_tree < other_tree else (other_tree, one_tree)
            if pair in seen_pairs:
                return None
            seen_pairs.add(pair)
        found = best_merge(one, other, power, last)
        if found is None:
            return None
        score = found[0] if noise is None else found[0] * noise[number % len(noise)]
        return (-score, number, one, other, found[1].rung, forest.changes[one], forest.changes[other])

    for number, (one, other) in enumerate(edges):
        made = entry(number, one, other)
        if made is not None:
            heap.append(made)
    heapify(heap)
    deepest = forest.blocks[last]
    while heap:
        _, number, one, other, rung, seen, seen_of_other = heappop(heap)
        if forest.changes[one] == seen and forest.changes[other] == seen_of_other:
            forest.merge(one, other, rung)
        if deepest[one] is not deepest[other]:
            made = entry(number, one, other)
            if made is not None:
                heappush(heap, made)


def edges_of(forest: Forest, points: Sequence[int], neighbours: int = NEIGHBOURS) -> list[tuple[int, int]]:
    """Return the pairs of points of which one is among the nearest of the other."""
    if len(points) <= neighbours + 1:
        return [(p, q) for i, p in enumerate(points) for q in points[i + 1 :]]
    squares = np.array([[forest.squares[p][q] for q in points] for p in points])
    np.fill_diagonal(squares, np.inf)
    nearest = np.argpartition(squares, neighbours - 1, axis=1)[:, :neighbours]
    found = {(min(i, int(k)), max(i, int(k))) for i, row in enumerate(nearest) for k in row}
    return [(points[i], points[k]) for i, k in sorted(found)]


def join(
    forest: Forest,
    points: Sequence[int],
    power: float,
    noise: Sequence[float] | None = None,
    last: int | None = None,
) -> None:
    """Merge the blocks of points as far as it goes: near points first, then whole blocks of every rung."""
    agglomerate(forest, edges_of(forest, points), power, noise, last)
    if len(points) <= NEIGHBOURS + 1:
        return
    for row in forest.blocks:
        middle = {id(row[p]): _medoid(row[p].points, row[p].sums) for p in points}
        if 1 < len(middle) < len(points):
            agglomerate(forest, edges_of(forest, sorted(middle.values())), power, noise, last)


def _medoid(points: Sequence[int], sums: Sequence[float]) -> int:
    return min(zip(sums, points, strict=True))[1]


def improve(forest: Forest, points: Sequence[int], random: np.random.Generator, rounds: int) -> None:
    """Take trees apart and join them anew, and keep what costs no more.

    Args:
        forest: The forest.
        points: The points whose trees may change, with whole trees.
        random: Chooses trees and scores.
        rounds: Number of tries.
    """
    if len(points) < 2:
        return
    for _ in range(rounds):
        first = points[int(random.integers(len(points)))]
        line = forest.squares[first]
        chosen: dict[int, None] = {}
        for near in sorted(points, key=line.__getitem__):
            if near in chosen:
                continue
            tree = forest.tree(near)
            if chosen and len(chosen) + len(tree) > _MOST_POINTS:
                break
            chosen.update(dict.fromkeys(tree))
        parts = list(chosen)
        kept, before = forest.kept(parts), forest.cost(parts)
        forest.dissolve(parts)
        power = _POWERS[int(random.integers(len(_POWERS)))]
        noise = random.uniform(0.6, 1.4, 61).tolist()
        last = int(random.integers(len(forest.blocks)))
        if last < len(forest.blocks) - 1:
            # what many share early comes before what few share for long
            join(forest, parts, power, noise, last)
        join(forest, parts, power, noise)
        if forest.cost(parts) > before + 1e-9:
            forest.restore(parts, kept)
