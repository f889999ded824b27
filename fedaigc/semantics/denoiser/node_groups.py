"""Group tasks by the nodes that their devices disclosed, from coarse to fine.

A node may be used only if the tasks of at least k devices may be grouped there, which is k-anonymity among those who
wait: whoever sees the group prompt cannot tell which of them it fits best. The server starts at the root, since a
larger group shares more, and every member has said that the node's public caption is near enough for it. Tasks that no
node takes run alone.
"""

from collections.abc import Mapping

from fedaigc.semantics.denoiser.atlas import LEAF, Atlas
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.grouping import Group


def node_groups(
    signatures: Mapping[str, NodeSignature | None],
    owners: Mapping[str, int],
    atlas: Atlas,
    minimum_devices: int = 2,
) -> list[Group]:
    """Group the tasks, in the order of the first task id of each group.

    A signature of another atlas, or of a node that is not in it, makes a group of one.

    Args:
        signatures: Task id -> the signature that its device disclosed. None makes a group of one.
        owners: Task id -> its device.
        atlas: The atlas.
        minimum_devices: k, the number of devices with tasks in a group.

    Raises:
        ValueError: If `minimum_devices` is below 2.
    """
    if minimum_devices < 2:
        raise ValueError(f"minimum_devices is {minimum_devices}: expected at least 2, or nothing is shared")
    ways = {
        task: _allowed(signature, atlas) for task, signature in signatures.items() if signature is not None
    }
    free = {task for task, way in ways.items() if way}
    groups = []
    # parents have smaller numbers than their children
    for node in sorted({node for way in ways.values() for node in way}):
        members = [task for task in sorted(free) if node in ways[task]]
        if len({owners[task] for task in members}) >= minimum_devices:
            groups.append(Group(tuple(members), atlas.captions[atlas.medoid(node)], None))
            free -= set(members)
    grouped = {task for group in groups for task in group.members}
    groups += [Group((task,), "", None) for task in signatures if task not in grouped]
    return sorted(groups, key=lambda group: group.members)


def _allowed(signature: NodeSignature, atlas: Atlas) -> frozenset[int]:
    """Return the nodes from the disclosed one up to the highest that its device allows."""
    if signature.atlas != atlas.hash or signature.node >= len(atlas):
        return frozenset()
    found = [signature.node]
    while found[-1] != signature.highest:
        above = atlas.parents[found[-1]]
        if above == LEAF:
            # the highest node is not on the way: only what is certain counts
            return frozenset({signature.node})
        found.append(above)
    return frozenset(found)
