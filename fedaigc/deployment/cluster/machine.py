"""One device in one round of a cluster, as a state machine: events and a clock in, decisions out, nothing else.

    collect    pass on every new offer, until every device has offered or is gone, or time is up, or another device
               that has already committed did so by offers that are all known here: then by the same ones
    commit     elect the groups from these offers, once, and tell every device to which groups this one commits
    compute    an executor computes once every device of its group has committed to it
    receive    the others wait for its packet
    stay       an executor stays until the others of its groups have decided, or are gone, or a time is up

A device commits once in a round, and to at most one group for each of its prompts. The digest of a group holds its
executor, and an executor computes only with the commits of all its devices. So no prompt has two executors, however
messages are lost, repeated, delayed or reordered. If a commit is missing or names other groups, if the executor is gone
or gives up, or if a time is up, the prompts of this device in that group run alone, and what comes later is ignored.
Every wait has an end, so each prompt is decided, once.

A message can be lost with its connection: whenever one to a device is made, it is told everything again. For this an
executor stays until the others of its groups say that they have decided: one that left once it had sent its packet
would take it along if its connection to one of them was not made yet.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from fedaigc.deployment.cluster.election import Elected
from fedaigc.deployment.cluster.messages import Commit, Decided, GivenUp, Message, Offered
from fedaigc.deployment.cluster.offers import Offer, SignedOffer

Elect = Callable[[Iterable[SignedOffer]], Sequence[Elected]]


@dataclass(frozen=True)
class Waits:
    """Seconds that a device waits.

    Attributes:
        collect_s: For the offers of all devices.
        commit_s: After its own commit, as an executor, for those of the others; then, once it has decided, for them to
            decide.
        compute_s: After `commit_s`, as another member, for the packet.
        gone_s: For a device to connect again.
    """

    collect_s: float = 120.0
    commit_s: float = 30.0
    compute_s: float = 600.0
    gone_s: float = 3.0


@dataclass(frozen=True)
class Send:
    """Send a message to a device, if it is connected."""

    to: str
    message: Message


@dataclass(frozen=True)
class SendPacket:
    """Send the packet of a group that this device computed to a device, if it is connected."""

    to: str
    group: Elected


@dataclass(frozen=True)
class Compute:
    """Run the shared steps of a group; then call `computed` or `failed`."""

    group: Elected


@dataclass(frozen=True)
class Finish:
    """Finish a prompt of this device from the packet of its group."""

    task: str
    group: Elected


@dataclass(frozen=True)
class Alone:
    """Run a prompt of this device alone.

    Attributes:
        task: Its name in the cluster.
        why: The reason, for the owner.
    """

    task: str
    why: str


Decision = Send | SendPacket | Compute | Finish | Alone


class _State(Enum):
    COMMITTED = auto()
    COMPUTING = auto()
    SHARED = auto()
    ALONE = auto()


@dataclass
class _Followed:
    """A group that this device has committed to.

    Attributes:
        group: The group.
        state: What became of it here.
        decided: As its executor, which other devices said that they have decided, before this one or after it.
        open: Once this device has decided as its executor, for which others it stays.
        stay_until: When it stays no longer.
    """

    group: Elected
    state: _State = _State.COMMITTED
    decided: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    stay_until: float = 0.0


@dataclass
class _Peer:
    """What this device knows of another one."""

    offers: dict[str, SignedOffer] = field(default_factory=dict)
    commit: Commit | None = None
    lost_since: float | None = None
    gone: bool = False

    @property
    def offer(self) -> SignedOffer | None:
        """Its offer; None if there is none, or more than one."""
        return next(iter(self.offers.values())) if len(self.offers) == 1 else None


class Machine:
    """One device in one round.

    Args:
        own: The offer of this device.
        peers: Fingerprints of the other devices of the cluster.
        elect: Elects the groups from offers; depends on nothing else.
        waits: How long to wait.
        now: The time in seconds, of any clock that does not go back.
    """

    def __init__(
        self, own: SignedOffer, peers: Collection[str], elect: Elect, waits: Waits, now: float
    ) -> None:
        self._own = own
        self._device = own.offer.device
        self._peers = {peer: _Peer() for peer in sorted(peers) if peer != self._device}
        self._elect = elect
        self._waits = waits
        self._until = now + waits.collect_s
        self._commit: Commit | None = None
        self._groups: dict[str, _Followed] = {}

    @property
    def ended(self) -> bool:
        """Whether every prompt of this device is decided, and no other device waits for it."""
        open_states = (_State.COMMITTED, _State.COMPUTING)
        return self._commit is not None and not any(
            followed.state in open_states or followed.open for followed in self._groups.values()
        )

    @property
    def own(self) -> Offer:
        """What this device offers."""
        return self._own.offer

    @property
    def round(self) -> int:
        """Number of the round."""
        return self._own.offer.round

    @property
    def commit(self) -> Commit | None:
        """What this device has committed to; None: nothing yet."""
        return self._commit

    @property
    def groups(self) -> list[Elected]:
        """The groups that this device has committed to."""
        return [followed.group for followed in self._groups.values()]

    def offers_of(self, peer: str) -> list[SignedOffer]:
        """Return the offers of another device; more than one do not count."""
        return list(self._peers[peer].offers.values())

    def reached(self, peer: str, now: float) -> list[Decision]:
        """A connection to a device was made, the first one or again."""
        if peer not in self._peers:
            return []
        told: list[Decision] = [Send(peer, _offered(self._own))]
        for name, other in self._peers.items():
            told += [Send(peer, _offered(signed)) for signed in other.offers.values() if name != peer]
        if self._commit is not None:
            told.append(Send(peer, self._commit))
        for digest, followed in self._groups.items():
            decided = followed.state in (_State.SHARED, _State.ALONE)
            if decided and followed.group.executor == peer:
                told.append(Send(peer, Decided(digest)))
            elif followed.group.executor == self._device and peer in followed.group.devices:
                if followed.state is _State.SHARED:
                    told.append(SendPacket(peer, followed.group))
                elif followed.state is _State.ALONE:
                    told.append(Send(peer, GivenUp(digest)))
        return told + self.tick(now)

    def offered(self, signed: SignedOffer, now: float) -> list[Decision]:
        """An offer arrived, from its device or passed on. Its signature is checked."""
        peer = self._peers.get(signed.offer.device)
        known = peer is None or signed.digest in peer.offers or len(peer.offers) > 1
        if peer is None or known or signed.offer.round != self.round or self._commit is not None:
            return self.tick(now)
        # a second, different one is passed on too: all learn that its device says two things
        peer.offers[signed.digest] = signed
        others = (other for other in self._peers if other != signed.offer.device)
        return [*(Send(other, _offered(signed)) for other in others), *self.tick(now)]

    def committed(self, sender: str, commit: Commit, now: float) -> list[Decision]:
        """A device committed; only its first commit of the round counts."""
        peer = self._peers.get(sender)
        if peer is not None and peer.commit is None and commit.round == self.round:
            peer.commit = commit
        return self.tick(now)

    def gave_up(self, sender: str, digest: str, now: float) -> list[Decision]:
        """A device says that it will not send the packet of a group."""
        followed = self._groups.get(digest)
        if followed is None or followed.group.executor != sender:
            return self.tick(now)
        return self._give_up(followed, "the device that was to compute gave up", now) + self.tick(now)

    def decided(self, sender: str, digest: str, now: float) -> list[Decision]:
        """A device says that it waits no longer for the packet of a group."""
        followed = self._groups.get(digest)
        if followed is not None:
            followed.decided.add(sender)
            followed.open.discard(sender)
        return self.tick(now)

    def received(self, sender: str, digest: str, now: float) -> list[Decision]:
        """The packet of a group arrived and opened."""
        followed = self._groups.get(digest)
        if followed is None or followed.group.executor != sender or followed.state is not _State.COMMITTED:
            return self.tick(now)
        return [*self._shared(followed, now), *self.tick(now)]

    def computed(self, digest: str, now: float) -> list[Decision]:
        """This device has run the shared steps of a group."""
        followed = self._groups[digest]
        assert followed.state is _State.COMPUTING
        sent = [SendPacket(device, followed.group) for device in self._others(followed)]
        return [*sent, *self._shared(followed, now), *self.tick(now)]

    def failed(self, digest: str, why: str, now: float) -> list[Decision]:
        """This device could not run the shared steps of a group."""
        followed = self._groups[digest]
        assert followed.state is _State.COMPUTING
        followed.state = _State.COMMITTED
        return self._give_up(followed, why, now) + self.tick(now)

    def heard(self, peer: str) -> None:
        """A device is connected to this one."""
        if peer in self._peers:
            self._peers[peer].lost_since = None
            self._peers[peer].gone = False

    def lost(self, peer: str, now: float) -> list[Decision]:
        """A device is no longer connected to this one."""
        if peer in self._peers and self._peers[peer].lost_since is None:
            self._peers[peer].lost_since = now
        return self.tick(now)

    def refused(self, peer: str, now: float) -> list[Decision]:
        """Nobody answers at the address of a device that is not connected to this one either."""
        # one that has offered was there
        return self.lost(peer, now) if peer in self._peers and self._peers[peer].offers else self.tick(now)

    def tick(self, now: float) -> list[Decision]:
        """Time has passed. To be called at least every second, or so."""
        for peer in self._peers.values():
            if peer.lost_since is not None and now >= peer.lost_since + self._waits.gone_s:
                peer.gone = True
        decisions: list[Decision] = []
        if self._commit is None:
            view = self._view(now)
            if view is None:
                return []
            decisions += self._close(view, now)
        for followed in list(self._groups.values()):
            if followed.state is _State.COMMITTED:
                decisions += self._followed(followed, now)
            if now >= followed.stay_until:
                followed.open.clear()
            followed.open = {device for device in followed.open if not self._peers[device].gone}
        return decisions

    def _view(self, now: float) -> list[SignedOffer] | None:
        """Return the offers to elect from; None: wait for more."""
        offers = [peer.offer for peer in self._peers.values()]
        known = {signed.digest: signed for signed in offers if signed is not None}
        known[self._own.digest] = self._own
        for peer in self._peers.values():
            view = () if peer.commit is None else peer.commit.view
            if self._own.digest in view and all(digest in known for digest in view):
                return [known[digest] for digest in view]
        if all(peer.offers or peer.gone for peer in self._peers.values()) or now >= self._until:
            return list(known.values())
        return None

    def _close(self, view: Sequence[SignedOffer], now: float) -> list[Decision]:
        for group in self._elect(view):
            if self._device in group.devices:
                self._groups[group.digest] = _Followed(group)
        digests = sorted(signed.digest for signed in view)
        self._commit = Commit(self.round, tuple(digests), tuple(self._groups))
        self._until = now + self._waits.commit_s
        grouped = {task for followed in self._groups.values() for task in followed.group.members}
        alone = [task for task in self._own.offer.tasks if task not in grouped]
        why = "no prompt of another device fits" if len(view) > 1 else "no other device came to this round"
        return [
            *(Send(peer, self._commit) for peer in self._peers),
            *(Alone(task, why) for task in alone),
        ]

    def _followed(self, followed: _Followed, now: float) -> list[Decision]:
        """Return what follows for a group that this device has committed to."""
        group = followed.group
        others = {device: self._peers[device] for device in group.devices if device != self._device}
        commits = [peer.commit for peer in others.values()]
        if any(commit is not None and group.digest not in commit.groups for commit in commits):
            return self._give_up(followed, "another device knows other offers", now)
        if any(peer.gone and peer.commit is None for peer in others.values()):
            return self._give_up(followed, "another device of the group is gone", now)
        if group.executor != self._device:
            if others[group.executor].gone:
                return self._give_up(followed, "the device that was to compute is gone", now)
            if now >= self._until + self._waits.compute_s:
                return self._give_up(followed, "the device that was to compute sent nothing in time", now)
            return []
        if None not in commits:
            followed.state = _State.COMPUTING
            return [Compute(group)]
        if now >= self._until:
            return self._give_up(followed, "not every device of the group answered in time", now)
        return []

    def _shared(self, followed: _Followed, now: float) -> list[Decision]:
        told = self._decide(followed, _State.SHARED, now)
        return told + [Finish(task, followed.group) for task in self._mine(followed)]

    def _give_up(self, followed: _Followed, why: str, now: float) -> list[Decision]:
        """Run the prompts of a group alone, unless that is decided already."""
        if followed.state is not _State.COMMITTED:
            return []
        told = self._decide(followed, _State.ALONE, now)
        if followed.group.executor == self._device:
            told += [Send(device, GivenUp(followed.group.digest)) for device in self._others(followed)]
        return told + [Alone(task, why) for task in self._mine(followed)]

    def _decide(self, followed: _Followed, state: _State, now: float) -> list[Decision]:
        followed.state = state
        group = followed.group
        if group.executor != self._device:
            return [Send(group.executor, Decided(group.digest))]
        # only those that wait for it: others have not committed, or to another group
        commits = {device: self._peers[device].commit for device in self._others(followed)}
        waiting = {
            device for device, made in commits.items() if made is not None and group.digest in made.groups
        }
        followed.open = waiting - followed.decided
        followed.stay_until = now + self._waits.commit_s
        return []

    def _others(self, followed: _Followed) -> list[str]:
        return [device for device in followed.group.devices if device != self._device]

    def _mine(self, followed: _Followed) -> list[str]:
        return [task for task in followed.group.members if task in self._own.offer.tasks]


def _offered(signed: SignedOffer) -> Offered:
    return Offered(signed.text, signed.by)
