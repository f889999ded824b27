"""Which prompts of a cluster share, and which device computes, as a function of the set of offers.

Devices that hold the same offers elect the same, in whatever order these came. Prompts are grouped as a server would
group them. The executor of a group is, of the devices with prompts in it, the one with the lowest cost; of those the
one that computes for the fewest groups so far; and of those the one with the smallest fingerprint.

A group is identified by a digest over the round, the offers of its devices, and all that was elected for it. Offers of
others decide who is in the group, but do not enter: devices whose sets differ elsewhere still agree on it.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fedaigc.collaboration.election import elect_executors
from fedaigc.collaboration.sealing import Binding
from fedaigc.deployment.cluster.offers import SignedOffer
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group

Grouping = Callable[[Mapping[str, Disclosed], Mapping[str, int]], list[Group]]
"""Groups of prompts by their signatures and the numbers of their devices."""


@dataclass(frozen=True)
class Elected:
    """One group of a round.

    Attributes:
        members: Names of its prompts, ascending.
        devices: Fingerprints of their devices, ascending.
        prompt: The public prompt of the shared steps.
        node: The node of the atlas whose caption the prompt is; None: the prompt is no caption.
        executor: Fingerprint of the device that runs the shared steps.
        shared_steps: K.
        noise_seed: Seed of the noise of the shared steps.
        digest: Digest of all this, the round, the plan and the offers of the devices, in hex.
    """

    members: tuple[str, ...]
    devices: tuple[str, ...]
    prompt: str
    node: int | None
    executor: str
    shared_steps: int
    noise_seed: int
    digest: str

    @property
    def binding(self) -> Binding:
        """What the packet of the group is sealed for."""
        return Binding(bytes.fromhex(self.digest), self.shared_steps)


def elect(offers: Iterable[SignedOffer], groupings: Mapping[str, Grouping]) -> list[Elected]:
    """Return the groups of a round, in the order of their first prompts. Prompts in none of them run alone.

    Only offers of one plan, one K and one space are grouped together.

    Args:
        offers: One offer of each device, all of one round.
        groupings: How prompts are grouped, by space; offers of other spaces are left to their devices.
    """
    pools: defaultdict[tuple[str, int, str], list[SignedOffer]] = defaultdict(list)
    for signed in sorted(offers, key=lambda signed: signed.offer.device):
        offer = signed.offer
        pools[offer.plan, offer.shared_steps, offer.space].append(signed)
    found = [
        elected
        for (_, _, space), pool in sorted(pools.items(), key=lambda item: item[0])
        if space in groupings
        for elected in _of_pool(pool, groupings[space])
    ]
    return sorted(found, key=lambda elected: elected.members)


def _of_pool(pool: list[SignedOffer], grouping: Grouping) -> list[Elected]:
    by_device = {signed.offer.device: signed for signed in pool}
    numbers = {device: number for number, device in enumerate(by_device)}
    signatures = {task: said for signed in pool for task, said in signed.offer.tasks.items()}
    devices = {task: signed.offer.device for signed in pool for task in signed.offer.tasks}
    groups = grouping(signatures, {task: numbers[device] for task, device in devices.items()})
    costs = {device: signed.offer.cost for device, signed in by_device.items()}
    return [
        _elected(each.group, [by_device[device] for device in each.devices], each.executor)
        for each in elect_executors(groups, devices, costs)
    ]


def _elected(group: Group, offers: list[SignedOffer], executor: str) -> Elected:
    first = offers[0].offer
    told = [first.round, first.plan, first.shared_steps, first.space, [signed.digest for signed in offers]]
    text = json.dumps(["fedaigc cluster 1", *told, list(group.members), group.prompt, group.node, executor])
    digest = hashlib.sha256(text.encode())
    seed = int.from_bytes(hashlib.sha256(b"noise" + digest.digest()).digest()[:8], "big") >> 1
    devices = tuple(signed.offer.device for signed in offers)
    return Elected(
        group.members,
        devices,
        group.prompt,
        group.node,
        executor,
        first.shared_steps,
        seed,
        digest.hexdigest(),
    )
