"""Group tasks by the nodes that their devices disclosed, for the most denoising steps saved.

A node may be used only if the tasks of at least k devices may be grouped there, which is k-anonymity among those who
wait: whoever sees the group prompt cannot tell which of them it fits best.

The tasks of a group at node v, of which task u takes K_u(v) shared steps, save

    sum_u K_u(v) - max_u K_u(v)

steps of the denoiser. A large group at a high node and small ones at deeper nodes, whose captions are nearer, are
weighed against each other: from the leaves to the root, the tasks below a node either form one group there, if that
saves more, or stay in the best groups of its children, and those that no child could group may form one there. Tasks
that no node takes run alone.

What a task would take is expected from public data alone: the captions that disclose its node, their distances to the
caption of v, and the calibration. What its device takes in the end is for the device to say.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import RISK, Calibration
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.sharing_distance import distance
from fedaigc.semantics.grouping import Group

ExpectedHandoff = Callable[[int, int], int]
"""Expected hand-off of a task by its disclosed node and the node of its group."""


@dataclass(frozen=True)
class _Formed:
    """A group at a node, and the steps that it is expected to save."""

    node: int
    members: tuple[str, ...]
    saved: int


def node_groups(
    signatures: Mapping[str, NodeSignature | None],
    owners: Mapping[str, int],
    atlas: Atlas,
    minimum_devices: int = 2,
    expected: ExpectedHandoff = lambda disclosed, node: 1,
) -> list[Group]:
    """Group the tasks, in the order of the first task id of each group.

    A signature of another atlas, or of a node that is not in it, makes a group of one.

    Args:
        signatures: Task id -> the signature that its device disclosed. None makes a group of one.
        owners: Task id -> its device.
        atlas: The atlas.
        minimum_devices: k, the number of devices with tasks in a group.
        expected: The hand-off that a task is expected to take. Default: the same one everywhere.

    Raises:
        ValueError: If `minimum_devices` is below 2.
    """
    if minimum_devices < 2:
        raise ValueError(f"minimum_devices is {minimum_devices}: expected at least 2, or nothing is shared")
    nodes = {
        task: told
        for task, told in signatures.items()
        if told is not None and told.atlas == atlas.hash and told.node < len(atlas)
    }
    # a highest node that is not on the way: only what is certain counts
    ways = {task: frozenset(atlas.lifted(told.node, told.highest)) for task, told in nodes.items()}

    def formed(node: int, tasks: Iterable[str]) -> _Formed | None:
        """Return the group of the tasks that may be at a node; None if they are too few."""
        members = tuple(sorted(task for task in tasks if node in ways[task]))
        steps = [expected(nodes[task].node, node) for task in members]
        if len({owners[task] for task in members}) < minimum_devices:
            return None
        return _Formed(node, members, sum(steps) - max(steps))

    here: dict[int, list[str]] = {}
    for task, told in nodes.items():
        here.setdefault(told.node, []).append(task)
    # what is below a node: its groups, and the tasks in none
    below: dict[int, tuple[list[_Formed], list[str]]] = {}
    # children have larger numbers than their parent
    for node in range(max(here, default=-1), -1, -1):
        children = [below.pop(child) for child in atlas.children[node].tolist() if child in below]
        if node not in here and not children:
            continue
        groups = [group for found, _ in children for group in found]
        free = [*here.get(node, ()), *(task for _, left in children for task in left)]
        movable = [group for group in groups if all(node in ways[task] for task in group.members)]
        rest = formed(node, free)
        one = formed(node, [*free, *(task for group in movable for task in group.members)])
        apart = sum(group.saved for group in movable) + (rest.saved if rest is not None else 0)
        if one is not None and one.saved > apart:
            groups = [group for group in groups if group not in movable]
            rest = one
        if rest is not None:
            groups.append(rest)
            free = [task for task in free if task not in rest.members]
        below[node] = (groups, free)
    found = [
        Group(group.members, atlas.captions[atlas.medoid(group.node)], None, group.node)
        for group in below.get(0, ([], []))[0]
    ]
    grouped = {task for group in found for task in group.members}
    found += [Group((task,), "", None) for task in signatures if task not in grouped]
    return sorted(found, key=lambda group: group.members)


def expected_handoff(
    atlas: Atlas,
    calibration: Calibration,
    tolerance: float,
    ladder: tuple[int, ...],
    risk: float = RISK,
) -> ExpectedHandoff:
    """Return the median, over the captions of the disclosed node, of the hand-off that the tolerance allows.

    It is at least the first of the ladder: a device discloses only nodes where it would take that.

    Args:
        atlas: The atlas.
        calibration: What sharing costs.
        tolerance: The largest damage of a picture.
        ladder: The hand-offs, ascending.
        risk: The largest share of pictures beyond the tolerance.
    """
    known: dict[tuple[int, int], int] = {}

    def expected(disclosed: int, node: int) -> int:
        if (disclosed, node) not in known:
            caption = atlas.vectors[atlas.medoid(node)]
            taken = [
                calibration.last_handoff(distance(atlas.vectors[row], caption), tolerance, ladder, risk=risk)
                for row in atlas.members[disclosed]
            ]
            known[disclosed, node] = max(ladder[0], int(np.median(taken)))
        return known[disclosed, node]

    return expected
