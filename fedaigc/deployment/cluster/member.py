"""One round of a cluster on a device: what it offers, what it computes, and its pictures.

Whatever the other devices do or fail to do costs only the sharing: a prompt is then drawn alone, by the same counted
attempts as for servers. All connections are closed before a picture is finished, so nothing that depends on it can be
sent.
"""

import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from fedaigc.bounds import MAX_CLUSTER, MAX_CLUSTER_PROMPTS, MAX_ROUND
from fedaigc.deployment.agent.agent import Agent
from fedaigc.deployment.cluster.election import Grouping, elect
from fedaigc.deployment.cluster.links import Find, Link, nowhere
from fedaigc.deployment.cluster.machine import Alone, Machine, Waits
from fedaigc.deployment.cluster.offers import VERSION, Offer, sign
from fedaigc.deployment.cluster.running import Running
from fedaigc.deployment.hosts import host_and_port
from fedaigc.deployment.peer.frames import is_own
from fedaigc.deployment.peer.matching import Matching
from fedaigc.deployment.peer.paired import Peers
from fedaigc.deployment.peer.sharing import FRAME_S, Terms
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.replies import DeviceError, FinishReport, UnknownTask
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.errors import PacketError, UserError
from fedaigc.federation.preloaded import taxonomy
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_groups import node_groups
from fedaigc.semantics.grouping import group
from fedaigc.semantics.policy import Policy

OWN = "own"


@dataclass(frozen=True)
class Outcome:
    """What became of one prompt in a round.

    Attributes:
        task_id: The task.
        report: Report about its picture; None: it was not drawn.
        executor: Who ran the shared steps: "own" for this device, the owner's name for another one; "" for nobody.
        devices: Number of devices of its group; 0 if it was drawn alone.
        why: Why it was not shared, for the owner; "" if it was.
    """

    task_id: str
    report: FinishReport | None = None
    executor: str = ""
    devices: int = 0
    why: str = ""


@dataclass(frozen=True)
class _Last:
    last: int


class Member:
    """One device of a cluster.

    Args:
        agent: The agent of the device.
        cost: What computing costs it, see `agreement.own_cost`.
        waits: How long it waits for the others.
        frame_s: Seconds that another device may take to read a message.

    Raises:
        UserError: Under the policy `open`, which would send prompts.
    """

    def __init__(
        self, agent: Agent, cost: int, waits: Waits | None = None, *, frame_s: float = FRAME_S
    ) -> None:
        if agent.settings.policy is Policy.OPEN:
            raise UserError("the policy open would send prompts to other devices: choose another one")
        self._agent = agent
        self._peers = Peers(agent.home)
        self._own = self._peers.own().fingerprint
        self._matching = Matching(agent)
        self._cost = cost
        self._waits = Waits() if waits is None else waits
        self._frame_s = frame_s

    def take_part(
        self,
        number: int,
        listening: socket.socket,
        addresses: Mapping[str, str],
        terms: Terms,
        prompts: int = 1,
        tell: Callable[[str], object] = lambda text: None,
        find: Find = nowhere,
    ) -> list[Outcome]:
        """Take part in a round, and draw waiting prompts in any case.

        Args:
            number: Number of the round, the same on all devices, and larger than that of any before.
            listening: A socket that listens, at which the others reach this device.
            addresses: host:port of the other devices, by the owner's names for them; "" for what they announce.
            terms: What to draw.
            prompts: How many waiting prompts take part, the oldest ones.
            tell: Called with why other devices share nothing in this round, for each of them.
            find: Returns the addresses at which a device announces itself now.

        Raises:
            UserError: If no prompt waits, this device cannot draw it so, a device is not paired, two have one address
                or one has that of this device, or the round is over for this device.
        """
        links = self._links(addresses, listening)
        with self._agent.pipeline_lock:
            device = self._agent.open_device()
            tasks = device.waiting()[: min(prompts, MAX_CLUSTER_PROMPTS)]
            if not tasks:
                raise UserError(
                    "no prompt waits on this device: add one with `fedaigc device add-prompt HOME TEXT`"
                )
            plan = terms.plan(device)
            nodes = self._matching.nodes(PlanRequest.of(plan), terms.shared_steps)
            claim_round(self._agent.home, number)
            said = self._said(device, tasks, nodes)
            offer = Offer(
                VERSION,
                number,
                self._own,
                plan.fingerprint(),
                terms.shared_steps,
                "" if nodes is None else nodes.atlas.hash,
                secrets.token_hex(32),
                self._cost,
                tuple(said.values()),
            )
            machine = Machine(
                sign(offer, self._peers.tls_file),
                links,
                partial(elect, groupings={offer.space: _grouping(nodes)}),
                self._waits,
                time.monotonic(),
            )
            # by their names in the cluster
            names = {offer.task(place): task for place, task in enumerate(said)}
            running = Running(machine, device, plan, names, self._peers, links, self._agent.note, tell)
            running.run(listening, self._frame_s, find)
            why = "nothing of this prompt may be disclosed, or no public prompt is near enough"
            outcomes = {task: Outcome(task, why=why) for task in tasks}
            packets: dict[str, bytes] = {}
            for decision in running.decided:
                task = names[decision.task]
                if isinstance(decision, Alone):
                    outcomes[task] = Outcome(task, why=decision.why)
                else:
                    chosen = decision.group
                    executor = OWN if chosen.executor == self._own else links[chosen.executor].name
                    outcomes[task] = Outcome(task, None, executor, len(chosen.devices))
                    packets[task] = running.packets[chosen.digest]
            return [self._drawn(outcomes[task], device, plan, packets.get(task)) for task in tasks]

    def _links(self, addresses: Mapping[str, str], listening: socket.socket) -> dict[str, Link]:
        if not 1 <= len(addresses) < MAX_CLUSTER:
            raise UserError(
                f"{len(addresses)} other devices: expected 1 to {MAX_CLUSTER - 1}, each as --with NAME=HOST:PORT"
            )
        links = [
            Link(name, self._peers.get(name), host_and_port(address, "--with") if address else "")
            for name, address in addresses.items()
        ]
        names: dict[str, str] = {}
        for link in (link for link in links if link.address):
            if link.address in names:
                raise UserError(
                    f"--with gives {names[link.address]} and {link.name} one address, {link.address}: give each its own"
                )
            names[link.address] = link.name
            if is_own(link.address, listening):
                raise UserError(
                    f"--with {link.name}={link.address} is this device itself: give that of {link.name}"
                )
        return {link.card.fingerprint: link for link in links}

    def _said(self, device: Device, tasks: Sequence[str], nodes: NodeDisclosure | None) -> dict[str, str]:
        """Return what is said of prompts, by task; it is counted in the ledger."""
        said = {}
        for task in tasks:
            if self._matching.signature(device, task, nodes) is None:
                continue
            signature = self._matching.counted(device, task, nodes)
            if signature is not None:
                said[task] = signature.to_json()
        return said

    def _drawn(self, outcome: Outcome, device: Device, plan: DenoisingPlan, packet: bytes | None) -> Outcome:
        """Draw a prompt: from the packet, or alone."""
        # of samplers that draw noise: this task's own
        seed = secrets.randbits(63)
        try:
            if packet is not None:
                try:
                    return replace(
                        outcome, report=device.finish(outcome.task_id, packet, plan, noise_seed=seed)
                    )
                except (PacketError, UserError, DeviceError) as error:
                    self._agent.note(f"packet of a cluster: {error}\n")
                    outcome = Outcome(outcome.task_id, why=str(error))
            return replace(outcome, report=device.alone(outcome.task_id, seed, plan))
        except UnknownTask:
            return replace(outcome, why="the prompt waits no longer")


def claim_round(home: Home, number: int) -> None:
    """Note that a device takes part in a round: it commits only once in each.

    Raises:
        UserError: If it took part in this round or a later one.
    """
    path = home.root / "peers" / "own" / "round.json"
    with home.changing("peers"):
        last = home.read(path, _Last).last if path.exists() else 0
        if not last < number <= MAX_ROUND:
            raise UserError(
                f"round {number}: this device took part in round {last}; give all devices of the cluster the same "
                f"number, {last + 1} or larger, up to {MAX_ROUND}"
            )
        home.write_json(path, {"last": number})


def _grouping(nodes: NodeDisclosure | None) -> Grouping:
    """Return how prompts are grouped in the space of this device."""
    if nodes is None:
        return lambda signatures, owners: group(signatures, taxonomy())  # type: ignore[arg-type]
    atlas = nodes.atlas
    return lambda signatures, owners: node_groups(signatures, owners, atlas)  # type: ignore[arg-type]
