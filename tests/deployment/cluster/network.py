"""A cluster of state machines over a network that loses, repeats, delays and divides, as a list of numbers says."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fedaigc.deployment.cluster.election import Elected, elect
from fedaigc.deployment.cluster.machine import (
    Alone,
    Compute,
    Decision,
    Finish,
    Machine,
    Send,
    SendPacket,
    Waits,
)
from fedaigc.deployment.cluster.messages import Commit, Decided, GivenUp, Offered, decoded, encoded
from fedaigc.deployment.cluster.offers import VERSION, Offer, SignedOffer
from fedaigc.semantics.denoiser.node_groups import node_groups
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from tests.semantics.denoiser.test_atlas import atlas_of

ATLAS = atlas_of(0)
PLAN = "a" * 64
WAITS = Waits(collect_s=60, commit_s=30, compute_s=100, gone_s=3)


def grouping(signatures: Any, owners: Any) -> Any:
    return node_groups(signatures, owners, ATLAS)


def elect_all(offers: Any) -> list[Elected]:
    return elect(offers, {ATLAS.hash: grouping})


def name(number: int) -> str:
    """Fingerprints whose order is not that of the numbers."""
    return hashlib.sha256(b"device %d" % number).hexdigest()


def signature(row: int, up: int) -> NodeSignature:
    way = ATLAS.way(ATLAS.vectors[row])
    return NodeSignature(ATLAS.hash, way[-1], way[max(0, len(way) - 1 - up)])


def offer(
    number: int,
    prompts: Sequence[tuple[int, int]],
    cost: int = 0,
    nonce: int = 0,
    plan: str = PLAN,
    at_round: int = 1,
) -> SignedOffer:
    """Return an offer of prompts, given by a caption and by how many nodes each may be lifted."""
    texts = tuple(signature(row, up).to_json() for row, up in prompts)
    made = Offer(VERSION, at_round, name(number), plan, 3, ATLAS.hash, f"{nonce:064x}", cost, texts)
    return SignedOffer(made, json.dumps(asdict(made)), "00")


@dataclass
class Device:
    """One device: its machine, its clock, and what it decided."""

    machine: Machine
    offer: SignedOffer
    clock: float
    alive: bool = True
    decided: list[Finish | Alone] = field(default_factory=list)
    computed: list[Elected] = field(default_factory=list)


@dataclass
class Cluster:
    """Devices and what is on its way between them.

    Attributes:
        devices: By fingerprint.
        flying: (from, to, what): a message, the packet of a group, or the end of a computation.
        sides: Side of each device, of a network that is divided.
    """

    devices: dict[str, Device]
    flying: list[tuple[str, str, Any]] = field(default_factory=list)
    sides: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, offers: Sequence[SignedOffer], starts: Sequence[float] = ()) -> "Cluster":
        names = [signed.offer.device for signed in offers]
        starts = [*starts, *[0.0] * (len(names) - len(starts))]
        devices = {
            signed.offer.device: Device(Machine(signed, names, elect_all, WAITS, start), signed, start)
            for signed, start in zip(offers, starts, strict=True)
        }
        cluster = cls(devices)
        cluster.meet()
        return cluster

    def connected(self, one: str, other: str) -> bool:
        both = self.devices[one].alive and self.devices[other].alive
        return both and self.sides.get(one, 0) == self.sides.get(other, 0)

    def meet(self) -> None:
        """Let all that are connected tell each other everything again."""
        for one, device in self.devices.items():
            for other in self.devices:
                if one != other and self.connected(one, other):
                    device.machine.heard(other)
                    self.take(one, device.machine.reached(other, device.clock))

    def take(self, one: str, decisions: Sequence[Decision]) -> None:
        device = self.devices[one]
        for decision in decisions:
            if isinstance(decision, Send):
                self.flying.append((one, decision.to, decoded(encoded(decision.message))))
            elif isinstance(decision, SendPacket):
                assert decision.group in device.computed
                self.flying.append((one, decision.to, decision.group))
            elif isinstance(decision, Compute):
                self.check_committed(decision.group)
                device.computed.append(decision.group)
                self.flying.append((one, one, decision.group))
            else:
                device.decided.append(decision)

    def check_committed(self, group: Elected) -> None:
        for device in group.devices:
            commit = self.devices[device].machine.commit
            assert commit is not None
            assert group.digest in commit.groups

    def deliver(self, number: int, *, again: bool = False, fails: bool = False) -> None:
        """Deliver what is on its way, unless the network is divided between the two."""
        sender, to, what = self.flying[number]
        if sender != to and not self.connected(sender, to):
            return
        computing = sender == to
        if computing or not again:
            del self.flying[number]
        device = self.devices[to]
        if not device.alive:
            return
        machine, now = device.machine, device.clock
        if computing:
            done = machine.failed(what.digest, "fails", now) if fails else machine.computed(what.digest, now)
            self.take(to, done)
        elif isinstance(what, Elected):
            self.take(to, machine.received(sender, what.digest, now))
        elif isinstance(what, Offered):
            fields = json.loads(what.text)
            made = Offer(**{**fields, "signatures": tuple(fields["signatures"])})
            self.take(to, machine.offered(SignedOffer(made, what.text, what.by), now))
        elif isinstance(what, Commit):
            self.take(to, machine.committed(sender, what, now))
        elif isinstance(what, Decided):
            self.take(to, machine.decided(sender, what.group, now))
        else:
            assert isinstance(what, GivenUp)
            self.take(to, machine.gave_up(sender, what.group, now))

    def wait(self, seconds: float, who: Sequence[str] = ()) -> None:
        for one in who or self.devices:
            device = self.devices[one]
            if device.alive:
                device.clock += seconds
                self.take(one, device.machine.tick(device.clock))

    def lose(self, one: str) -> None:
        """Let all others find out that a device is no longer connected."""
        for other, device in self.devices.items():
            if other != one and device.alive:
                self.take(other, device.machine.lost(one, device.clock))

    def kill(self, one: str) -> None:
        self.devices[one].alive = False
        self.lose(one)

    def act(self, action: int) -> None:
        """Do what a number says."""
        kind, which = action % 10, action // 10
        names = list(self.devices)
        if kind == 9:
            self.sides = {one: which >> number & 1 for number, one in enumerate(names)}
            self.meet()
        elif kind == 8:
            self.wait((1, 5, 20, 40)[which % 4], [names[which // 4 % len(names)]])
        elif kind == 7:
            self.lose(names[which % len(names)])
        elif self.flying:
            number = which % len(self.flying)
            if kind == 6 and self.flying[number][0] != self.flying[number][1]:
                del self.flying[number]
            else:
                self.deliver(number, again=kind == 5, fails=kind in (3, 4))

    def settle(self) -> None:
        """Let time pass without further messages between devices, until all that is computed has ended."""
        for _ in range(60):
            self.wait(10)
            for number in reversed(range(len(self.flying))):
                sender, to, _ = self.flying[number]
                if sender == to:
                    self.deliver(number)

    def deliver_all(self, order: Sequence[int]) -> None:
        """Deliver everything in an order, as far as the order goes, then as it was sent."""
        rest = list(order)
        while self.flying:
            number = (rest.pop() if rest else 0) % len(self.flying)
            sender, to, _ = self.flying[number]
            if sender == to or self.connected(sender, to):
                self.deliver(number)
            else:
                del self.flying[number]
