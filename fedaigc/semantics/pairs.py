"""Two prompts that share, and on what prompt: a function of what both devices disclosed, the same on either."""

from bisect import insort
from collections.abc import Mapping, Sequence
from functools import cache

from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import MAX_DISTANCE, Group, distance, group
from fedaigc.semantics.signature import Signature

_ONE, _OTHER = "one", "other"


def common(
    one: Disclosed,
    other: Disclosed,
    atlas: Atlas | None,
    taxonomy: Taxonomy,
    max_distance: float = MAX_DISTANCE,
) -> Group | None:
    """Return the group of two prompts, by nodes at the deepest node of both; None if they cannot share.

    Args:
        one: Signature of one prompt.
        other: Signature of the other prompt.
        atlas: The atlas of nodes.
        taxonomy: The knowledge graph of concepts.
        max_distance: Largest distance between their concepts.
    """
    if isinstance(one, NodeSignature) or isinstance(other, NodeSignature):
        if not (isinstance(one, NodeSignature) and isinstance(other, NodeSignature)) or atlas is None:
            return None
        if any(told.atlas != atlas.hash or told.node >= len(atlas) for told in (one, other)):
            return None
        ways = [set(atlas.lifted(told.node, told.highest)) for told in (one, other)]
        # both ways lead to the root: what they have in common lies on one way, where numbers grow downwards
        node = max(ways[0] & ways[1], default=None)
        return None if node is None else Group((_ONE, _OTHER), atlas.captions[atlas.medoid(node)], None, node)
    groups = group({_ONE: one, _OTHER: other}, taxonomy, max_distance)
    return groups[0] if len(groups) == 1 else None


def best(
    theirs: Disclosed, own: Sequence[tuple[str, Disclosed]], atlas: Atlas | None, taxonomy: Taxonomy
) -> tuple[str, Disclosed] | None:
    """Return which own prompt shares most with another device's: the nearest, of equally near ones the first.

    Args:
        theirs: Signature of the other device's prompt.
        own: Tasks and their signatures, oldest first.
        atlas: The atlas of nodes.
        taxonomy: The knowledge graph of concepts.
    """
    found: list[tuple[float, int]] = []
    for number, (_, signature) in enumerate(own):
        shared = common(theirs, signature, atlas, taxonomy)
        if shared is not None:
            found.append((_apart(theirs, signature, shared, atlas, taxonomy), number))
    return own[min(found)[1]] if found else None


def pairs(
    signatures: Mapping[str, Disclosed | None],
    owners: Mapping[str, int],
    atlas: Atlas | None,
    taxonomy: Taxonomy,
    max_distance: float = MAX_DISTANCE,
) -> list[Group]:
    """Put prompts together in pairs of two devices, in the order of the first task id of each group.

    In the order of their ids, each task takes the nearest one of another device that is in no pair yet, of equally near
    ones the first; its signature is compared as by `common`. A task for which none is left is a group of one.

    Args:
        signatures: Task id -> the signature that its device disclosed. None makes a group of one.
        owners: Task id -> its device.
        atlas: The atlas of nodes.
        taxonomy: The knowledge graph of concepts.
        max_distance: Largest distance between the concepts of a pair.
    """

    @cache
    def compared(one: Disclosed, other: Disclosed) -> tuple[float, Group] | None:
        shared = common(one, other, atlas, taxonomy, max_distance)
        return None if shared is None else (_apart(one, other, shared, atlas, taxonomy), shared)

    free: dict[Disclosed, list[str]] = {}
    for task, told in signatures.items():
        if told is not None:
            insort(free.setdefault(told, []), task)
    found: list[Group] = []
    paired: set[str] = set()
    for task in sorted(signatures):
        told = signatures[task]
        if told is None or task in paired:
            if told is None:
                found.append(Group((task,), "", None))
            continue
        free[told].remove(task)
        offered: list[tuple[float, str, Group]] = []
        for other, tasks in free.items():
            near = next((each for each in tasks if owners[each] != owners[task]), None)
            result = compared(told, other) if near is not None else None
            if near is not None and result is not None:
                offered.append((result[0], near, result[1]))
        if not offered:
            found.append(Group((task,), "", None))
            continue
        _, near, shared = min(offered, key=lambda offer: offer[:2])
        answer = signatures[near]
        assert answer is not None
        free[answer].remove(near)
        paired.add(near)
        # ids are taken in order: the other one is larger
        found.append(Group((task, near), shared.prompt, shared.signature, shared.node))
    return found


def _apart(one: Disclosed, other: Disclosed, shared: Group, atlas: Atlas | None, taxonomy: Taxonomy) -> float:
    """Return how far two prompts that share are apart: by nodes the deeper the common one, the nearer."""
    if shared.node is not None and atlas is not None:
        return -float(len(atlas.lifted(shared.node, 0)))
    assert isinstance(one, Signature)
    assert isinstance(other, Signature)
    return distance(one, other, taxonomy)
