"""A round on one device: its state machine, with real connections, a real clock, and shared steps that are run."""

import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fedaigc.bounds import MAX_CLUSTER, MAX_PEER_MESSAGE
from fedaigc.collaboration.sealing import SealError, seal, sealed_bytes, unseal
from fedaigc.deployment.cluster import messages
from fedaigc.deployment.cluster.election import Elected
from fedaigc.deployment.cluster.links import Ended, Find, Frame, Heard, Link, Links, Opened, Refused, nowhere
from fedaigc.deployment.cluster.machine import Alone, Compute, Decision, Finish, Machine, Send, SendPacket
from fedaigc.deployment.cluster.messages import Commit, Decided, GivenUp
from fedaigc.deployment.cluster.offers import read_offer
from fedaigc.deployment.cluster.reasons import apart, not_there, other_round
from fedaigc.deployment.peer.frames import PeerMistake
from fedaigc.deployment.peer.paired import Peers
from fedaigc.deployment.peer.sharing import plan_room
from fedaigc.device.device import Device
from fedaigc.diffusion.schedule.plan import DenoisingPlan

_TICK_S = 0.5
_SEALED = b"FAGS"


@dataclass(frozen=True)
class _Computed:
    """This device has run the shared steps of a group."""

    group: Elected
    done: "Future[tuple[bytes, bytes]]"


class Running:
    """A round on one device.

    Args:
        machine: The state machine of the round.
        device: The device.
        plan: The plan of its pictures.
        names: Its tasks, by the names of their prompts in the cluster.
        peers: Its keys.
        links: The other devices, by fingerprint.
        note: Called with what the owner may want to know later.
        tell: Called with why other devices share nothing in this round, as soon as this device has committed.

    Attributes:
        decided: The decisions about prompts, in the order in which they were made.
        packets: Packets by the digests of their groups.
    """

    def __init__(
        self,
        machine: Machine,
        device: Device,
        plan: DenoisingPlan,
        names: Mapping[str, str],
        peers: Peers,
        links: Mapping[str, Link],
        note: Callable[[str], object],
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._machine, self._device, self._plan, self._names = machine, device, plan, names
        self._say, self._wrong = tell, dict[str, str]()
        self._peers, self._links, self._note = peers, links, note
        self._cards = {other: link.card for other, link in links.items()}
        self._seal_key = peers.seal_key()
        self._room = plan_room(device, plan)
        self._round = machine.round
        self._sealed: dict[str, bytes] = {}
        self.decided: list[Finish | Alone] = []
        self.packets: dict[str, bytes] = {}

    def run(self, listening: socket.socket, frame_s: float, find: Find = nowhere) -> None:
        """Go through the round, until every prompt is decided and no other device waits for this one.

        Args:
            listening: A socket that listens, at which the others reach this device.
            frame_s: Seconds that another device may take to read a message.
            find: Returns the addresses at which a device announces itself now.
        """
        most = max(MAX_PEER_MESSAGE, sealed_bytes(self._room, MAX_CLUSTER))
        with (
            ThreadPoolExecutor(1) as worker,
            Links(self._peers, self._links, listening, frame_s, most, find) as connections,
        ):
            told = False
            while not self._machine.ended:
                event = connections.next(_TICK_S)
                try:
                    decisions = self._after(event, time.monotonic())
                except PeerMistake as error:
                    self._wrong[event.device] = str(error)
                    self._note(f"cluster, {self._links[event.device].name}: {error}\n")
                    continue
                if not told and self._machine.commit is not None:
                    told = True
                    self._tell(connections)
                for decision in decisions:
                    self._carry_out(decision, connections, worker)

    def _tell(self, connections: Links) -> None:
        """Say why other devices share nothing in this round."""
        for device, link in self._links.items():
            offers = self._machine.offers_of(device)
            if not offers:
                text = not_there(link, self._wrong.get(device, ""), connections.troubles.get(device))
            else:
                text = apart(self._machine.own, offers, link.name)
            if text:
                self._note(f"cluster: {text}\n")
                self._say(text)

    def _after(self, event: Any, now: float) -> list[Decision]:
        machine = self._machine
        if isinstance(event, Opened):
            return machine.reached(event.device, now)
        if isinstance(event, Heard):
            machine.heard(event.device)
        if isinstance(event, Ended):
            return machine.lost(event.device, now)
        if isinstance(event, Refused):
            return machine.refused(event.device, now)
        if isinstance(event, _Computed):
            digest = event.group.digest
            try:
                self.packets[digest], self._sealed[digest] = event.done.result()
            except Exception as error:
                # whatever it is: the prompts are drawn alone, where it is raised again if it lies in this device
                self._note(f"shared steps of a cluster: {type(error).__name__}: {error}\n")
                return machine.failed(digest, f"the shared steps failed here: {error}", now)
            return machine.computed(digest, now)
        if isinstance(event, Frame):
            return self._read(event, now)
        return machine.tick(now)

    def _read(self, frame: Frame, now: float) -> list[Decision]:
        if frame.data.startswith(_SEALED):
            return self._opened(frame, now)
        message = messages.decoded(frame.data)
        if isinstance(message, Commit):
            return self._machine.committed(frame.device, message, now)
        if isinstance(message, GivenUp):
            return self._machine.gave_up(frame.device, message.group, now)
        if isinstance(message, Decided):
            return self._machine.decided(frame.device, message.group, now)
        signed = read_offer(message.text, message.by, self._cards)
        if signed.offer.round != self._round and frame.device == signed.offer.device:
            raise PeerMistake(other_round(signed.offer.round, self._round))
        return self._machine.offered(signed, now)

    def _opened(self, frame: Frame, now: float) -> list[Decision]:
        """Open a packet, if it is for one of this device's groups."""
        for chosen in self._machine.groups:
            if chosen.executor != frame.device or chosen.digest in self.packets:
                continue
            try:
                packet = unseal(
                    frame.data, chosen.binding, self._seal_key, self._cards[frame.device].seal_key
                )
            except SealError:
                continue
            self.packets[chosen.digest] = packet
            return self._machine.received(frame.device, chosen.digest, now)
        return self._machine.tick(now)

    def _carry_out(self, decision: Decision, connections: Links, worker: ThreadPoolExecutor) -> None:
        if isinstance(decision, Send):
            connections.send(decision.to, messages.encoded(decision.message))
        elif isinstance(decision, SendPacket):
            connections.send(decision.to, self._sealed[decision.group.digest])
        elif isinstance(decision, Compute):
            chosen = decision.group
            done = worker.submit(self._compute, chosen)
            done.add_done_callback(lambda done: connections.put(_Computed(chosen, done)))
        else:
            self.decided.append(decision)

    def _compute(self, chosen: Elected) -> tuple[bytes, bytes]:
        """Run the shared steps of a group; return the packet, and sealed to the other devices."""
        task = next(self._names[member] for member in chosen.members if member in self._names)
        steps = self._device.share(
            task, chosen.prompt, self._plan, chosen.shared_steps, noise_seed=chosen.noise_seed
        )
        keys = [self._cards[other].seal_key for other in chosen.devices if other in self._cards]
        return steps.packet, seal(steps.packet, chosen.binding, self._seal_key, keys, self._room)
