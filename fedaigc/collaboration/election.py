"""Who runs the shared steps where devices are among themselves: the same on each, by a function of what all know."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedaigc.semantics.grouping import Group

Device = TypeVar("Device", int, str)


@dataclass(frozen=True)
class Executing(Generic[Device]):
    """A group of two and more devices, and which of them runs its shared steps.

    Attributes:
        group: The group.
        devices: Its devices, ascending.
        executor: The one that runs the shared steps.
    """

    group: Group
    devices: tuple[Device, ...]
    executor: Device


def cheapest(devices: Iterable[Device], costs: Mapping[Device, int]) -> Device:
    """Return the device with the lowest cost; of several, the one that is first in order."""
    return min(devices, key=lambda device: (costs[device], device))


def elect_executors(
    groups: Sequence[Group], owners: Mapping[str, Device], costs: Mapping[Device, int]
) -> list[Executing[Device]]:
    """Elect the executors of a cluster, group by group in the order of their first tasks.

    Of the devices of a group it is the one with the lowest cost; of those the one that computes for the fewest groups
    so far; and of those the one that is first in order. Groups on one device are left out: nothing is sent there.

    Args:
        groups: Groups of tasks.
        owners: Device of each task.
        costs: What computing costs each device.
    """
    burden: Counter[Device] = Counter()
    elected = []
    for group in sorted(groups, key=lambda group: group.members):
        devices = tuple(sorted({owners[task] for task in group.members}))
        if len(devices) < 2:
            continue
        executor = min(devices, key=lambda device: (costs[device], burden[device], device))
        burden[executor] += 1
        elected.append(Executing(group, devices, executor))
    return elected
