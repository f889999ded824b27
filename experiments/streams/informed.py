"""Groups of a server that knows the vector of every prompt: an oracle, against which groups at nodes are compared."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from experiments.streams.drawing import Studio
from experiments.streams.policies import Formed

Handoffs = Callable[[Float[np.ndarray, " n"]], Sequence[int]]
"""Hand-offs that members take, by their distances to what the shared steps run on."""


def informed_groups(
    vectors: Float[np.ndarray, "n d"], captions: Float[np.ndarray, "captions d"], taken: Handoffs
) -> list[tuple[int, ...]]:
    """Merge, again and again, the two groups that together save most more than apart, while any do.

    Groups of three and more are taken to run on the mean of their vectors, which is nearly that of their mean
    embedding; two on the public caption nearest to it.

    Args:
        vectors: Vector of each prompt.
        captions: Vectors of the public captions.
        taken: The hand-offs that members take.

    Returns:
        The groups of two and more.
    """

    def saved(members: tuple[int, ...]) -> int:
        if len(members) < 2:
            return 0
        own = vectors[list(members)]
        middle = own.mean(0)
        if len(members) == 2:
            middle = captions[_nearest(captions, middle)]
        steps = taken(np.linalg.norm(own - middle, axis=1))
        return int(sum(steps) - max(steps))

    groups: list[tuple[int, ...]] = [(i,) for i in range(len(vectors))]
    worth = {group: saved(group) for group in groups}
    while True:
        best, pair = 0, None
        for one, other in combinations(groups, 2):
            both = (*one, *other)
            if both not in worth:
                worth[both] = saved(both)
            gain = worth[both] - worth[one] - worth[other]
            if gain > best:
                best, pair = gain, (one, other)
        if pair is None:
            break
        groups = [group for group in groups if group not in pair] + [(*pair[0], *pair[1])]
    return [tuple(sorted(group)) for group in groups if len(group) > 1]


def informed(studio: Studio, window: Sequence[str], taken: Handoffs) -> list[Formed]:
    """Return the groups with what their shared steps run on."""
    vectors, captions = studio.vectors(window), studio.atlas.vectors
    found = []
    for members in informed_groups(vectors, captions, taken):
        if len(members) > 2:
            conditioning = studio.embeddings([window[i] for i in members]).mean(0)
            found.append(Formed(members, conditioning, studio.vector_of(conditioning)))
            continue
        row = _nearest(captions, vectors[list(members)].mean(0))
        (conditioning,) = studio.embeddings([studio.atlas.captions[row]])
        found.append(Formed(members, conditioning, captions[row]))
    return found


def _nearest(captions: Float[np.ndarray, "captions d"], vector: Float[np.ndarray, " d"]) -> int:
    return int(np.linalg.norm(captions - vector, axis=1).argmin())
