"""The four topologies of a generation: who groups prompts, and where their shared steps run.

edge       one edge server for all devices
edges      several edge servers, each for its own devices
pair       two devices at a time, one of which runs the shared steps
cluster    groups of devices, one of which runs the shared steps of its group
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from fedaigc.collaboration.election import cheapest, elect_executors
from fedaigc.semantics.grouping import Group

Topology = Literal["edge", "edges", "pair", "cluster"]
BETWEEN_DEVICES: tuple[Topology, ...] = ("pair", "cluster")
"""Topologies without an edge: a packet goes from the device that made it to the others, and to no server."""


def on_several_devices(groups: Sequence[Group], owners: Mapping[str, int]) -> list[Group]:
    """Return groups as devices among themselves form them: tasks of one device alone share nothing.

    Args:
        groups: Groups of tasks.
        owners: Device of each task.
    """
    found = []
    for group in groups:
        if len({owners[task] for task in group.members}) > 1:
            found.append(group)
        else:
            found += [Group((task,), "", None) for task in group.members]
    return sorted(found, key=lambda group: group.members)


def executors_of(
    topology: Topology, groups: Sequence[Group], owners: Mapping[str, int], costs: Mapping[int, int]
) -> dict[str, int] | None:
    """Return the device that runs the shared steps of each group, by the group's first task; None with an edge.

    Of a pair it is the one with the lower cost, as two devices agree that know nothing of others. In a cluster, see
    `elect_executors`.

    Args:
        topology: The topology.
        groups: Groups of tasks; those on one device are left out.
        owners: Device of each task.
        costs: What computing costs each device.
    """
    if topology not in BETWEEN_DEVICES:
        return None
    elected = elect_executors(groups, owners, costs)
    if topology == "pair":
        return {each.group.members[0]: cheapest(each.devices, costs) for each in elected}
    return {each.group.members[0]: each.executor for each in elected}
