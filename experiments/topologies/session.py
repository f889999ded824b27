"""One generation of a topology, on devices that move while they compute: its records, seconds and joules.

A member's link has the path loss without line of sight of 3GPP TR 38.901 at the distance from its executor when the
packet leaves, Rayleigh fading, adaptive coding and up to four transmissions. A packet that is still damaged is refused,
and its prompt is drawn alone. An executor that follows the link runs further steps while one of its members is out of
reach, up to a limit.

Every machine does one thing at a time: devices run the shared steps of their groups first, then finish their prompts in
the order in which packets arrive. A sender sends one packet after the other.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from experiments.topologies.counted import CountedMachines
from experiments.topologies.movement import Movement
from fedaigc.collaboration.between_devices import MESSAGES, device_bytes
from fedaigc.collaboration.link import SimulatedLink
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.collaboration.planner import plan_assignments
from fedaigc.collaboration.results import GroupRecord, Outcome
from fedaigc.collaboration.session import carry_out
from fedaigc.collaboration.topology import Topology, executors_of, on_several_devices
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.federation.preloaded import taxonomy
from fedaigc.planning.setting import EDGE
from fedaigc.semantics.grouping import Group, group
from fedaigc.semantics.pairs import pairs
from fedaigc.semantics.signature import Signature
from fedaigc.wireless.block_code import MCS
from fedaigc.wireless.block_table import block_table
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE

BANDWIDTH_HZ = 5e6
TRANSMISSIONS = 4
# of fading; how devices move from place to place is in the trace
WALKING_M_S = 1.4


@dataclass(frozen=True)
class Setting:
    """What all topologies have in common.

    Attributes:
        plan: The denoising plan.
        shared_steps: K, the fewest shared steps.
        further: Steps that an executor may add while a member is out of reach.
        signatures: What was disclosed of each prompt.
        owners: The device of each prompt.
        costs: What computing costs each device.
        sites: Where the edges are, by topology.
        movement: Where the devices are.
        at_s: When the generation begins.
        seed: Seed of the channels.
    """

    plan: DenoisingPlan
    shared_steps: int
    further: int
    signatures: Mapping[str, Signature | None]
    owners: Mapping[str, int]
    costs: Mapping[int, int]
    sites: Mapping[str, np.ndarray]
    movement: Movement
    at_s: float
    seed: int


@dataclass(frozen=True)
class Spent:
    """What a generation took, for one prompt in the mean.

    Attributes:
        steps_devices: Denoising steps of devices.
        steps_edges: Denoising steps of edges.
        joules_devices: Joules of devices, their radios included.
        joules_edges: Joules of edges, their radios included.
        seconds: Until a picture is there.
        kbit: Kilobits of packets on the air, retransmissions included.
        kbit_messages: Kilobits of the messages by which devices without an edge agree.
        shared: Share of the prompts that share steps.
        lost: Share of the sent packets that were refused.
        shared_steps: Shared steps of a group.
    """

    steps_devices: float
    steps_edges: float
    joules_devices: float
    joules_edges: float
    seconds: float
    kbit: float
    kbit_messages: float
    shared: float
    lost: float
    shared_steps: float


@cache
def reach_db() -> float:
    """Return the SNR from which the most robust scheme loses at most a tenth of its blocks."""
    levels = np.arange(-20.0, 30.0, 0.1)
    lost = block_table(MCS[min(MCS)]).block_error_rate(levels)
    return float(levels[np.flatnonzero(lost <= 0.1)[0]])


def alone(setting: Setting) -> Spent:
    """Return what the prompts take without sharing."""
    steps = setting.plan.num_steps
    waits: defaultdict[int, float] = defaultdict(float)
    seconds = []
    for task in sorted(setting.owners):
        waits[setting.owners[task]] += PHONE.image_s(steps)
        seconds.append(waits[setting.owners[task]])
    return Spent(steps, 0.0, PHONE.image_j(steps), 0.0, float(np.mean(seconds)), 0.0, 0.0, 0.0, 0.0, 0.0)


def generation(setting: Setting, topology: Topology, machines: CountedMachines, *, follows: bool) -> Spent:
    """Run one generation.

    Args:
        setting: The setting.
        topology: The topology.
        machines: The machines, which count.
        follows: Whether executors run further steps while a member is out of reach.
    """
    places = setting.movement.at(setting.at_s)
    groups = _groups(setting, topology, places)
    clock = _Clock()
    elected = executors_of(topology, [each for each, _ in groups], setting.owners, setting.costs)
    records = []
    for each, site in groups:
        executor: str | int = EDGE if elected is None else elected.get(each.members[0], EDGE)
        machine = f"edge {site}" if executor == EDGE else int(executor)
        step_s = (EDGE_SERVER if executor == EDGE else PHONE).step_s
        begins = clock.free[machine] if len(each.members) > 1 else 0.0

        steps = setting.shared_steps
        to = partial(_hops, setting, topology, site, executor)
        others = {setting.owners[task] for task in each.members} - {executor}
        shares = len(each.members) > 1
        while shares and follows and steps < setting.shared_steps + setting.further:
            hop = to(begins + steps * step_s)
            if min(hop(client).snr_db for client in others) >= reach_db():
                break
            steps += 1
        sending = to(begins + steps * step_s)
        record = _carried_out(setting, each, steps, executor, elected, sending, machines)
        clock.add(record, machine, steps)
        records.append(record)
    return _spent(setting, topology, records, clock)


def _groups(setting: Setting, topology: Topology, places: np.ndarray) -> list[tuple[Group, int]]:
    """Return the groups, each with the number of its edge, 0 without one."""
    signatures, owners = setting.signatures, setting.owners
    if topology == "pair":
        return [(each, 0) for each in pairs(signatures, owners, None, taxonomy())]
    if topology == "cluster":
        return [(each, 0) for each in on_several_devices(group(signatures, taxonomy()), owners)]
    sites = setting.sites[topology]
    # a device is in the cell of the nearest edge
    cells = np.linalg.norm(places[:, None] - sites[None], axis=2).argmin(axis=1)
    found = []
    for site in range(len(sites)):
        own = {task: told for task, told in signatures.items() if cells[owners[task]] == site}
        found += [(each, site) for each in group(own, taxonomy())]
    return found


def _hops(
    setting: Setting, topology: Topology, site: int, executor: str | int, after_s: float
) -> Callable[[int], RadioLink]:
    """Return the links from an executor to the devices, some seconds after the generation began."""
    places = setting.movement.at(setting.at_s + after_s)
    by_edge = executor == EDGE

    def hop(client: int) -> RadioLink:
        here = setting.sites[topology][site] if by_edge else places[int(executor)]
        return RadioLink(
            max(1.0, float(np.linalg.norm(here - places[client]))),
            (EDGE_SERVER if by_edge else PHONE).tx_power_w,
            bandwidth_hz=BANDWIDTH_HZ,
            line_of_sight=False,
            speed_m_s=WALKING_M_S,
        )

    return hop


def _carried_out(
    setting: Setting,
    each: Group,
    steps: int,
    executor: str | int,
    elected: Mapping[str, int] | None,
    hops: Callable[[int], RadioLink],
    machines: CountedMachines,
) -> GroupRecord:
    owners = {task: setting.owners[task] for task in each.members}
    assignments = plan_assignments(
        [each], owners, setting.plan, num_shared_steps=steps, seed=setting.seed, elected=elected
    )
    by_edge = executor == EDGE
    sender = EDGE_SERVER if by_edge else PHONE
    settings = LinkSettings(
        # the hops have the distances
        distance_m=1.0,
        tx_power_w=sender.tx_power_w,
        bandwidth_hz=BANDWIDTH_HZ,
        speed_m_s=WALKING_M_S,
        rayleigh=True,
        max_transmissions=TRANSMISSIONS,
    )
    link = SimulatedLink(settings, setting.seed, sender, hops)
    (record,) = carry_out(assignments, owners, setting.plan, machines, machines.edge, link)
    return record


class _Clock:
    """Who is busy until when, and when each prompt can be finished."""

    def __init__(self) -> None:
        self.free: defaultdict[str | int, float] = defaultdict(float)
        self.ready: dict[str, float] = {}

    def add(self, record: GroupRecord, machine: str | int, steps: int) -> None:
        """Add the shared steps of a group, and its packets, one after the other."""
        if not record.num_shared_steps:
            self.ready |= {task.task_id: 0.0 for task in record.tasks}
            return
        profile = PHONE if isinstance(machine, int) else EDGE_SERVER
        self.free[machine] += profile.shared_s(steps)
        sent = self.free[machine]
        arrived: dict[int, float] = {}
        for task in record.tasks:
            if task.link is not None:
                sent += task.link.latency_s
                arrived[task.client] = sent
            self.ready[task.task_id] = arrived.get(task.client, self.free[machine])


def _spent(setting: Setting, topology: Topology, records: Sequence[GroupRecord], clock: _Clock) -> Spent:
    tasks = [task for record in records for task in record.tasks]
    sharing = [record for record in records if record.num_shared_steps]
    edges = [record for record in sharing if record.executor == EDGE]
    devices = [record for record in sharing if record.executor != EDGE]
    own = {task.task_id: task.report.shared_stage_steps for task in tasks if task.report is not None}
    busy = dict(clock.free)
    seconds = []
    for task in sorted(tasks, key=lambda task: (clock.ready[task.task_id], task.task_id)):
        begins = max(busy.get(task.client, 0.0), clock.ready[task.task_id])
        busy[task.client] = begins + PHONE.image_s(own[task.task_id])
        seconds.append(busy[task.client])
    links = [task.link for task in tasks if task.link is not None]
    received = sum(link.receive_j for link in links)
    sent = {record.executor == EDGE: 0.0 for record in sharing}
    for record in sharing:
        sent[record.executor == EDGE] += sum(
            task.link.send_j for task in record.tasks if task.link is not None
        )
    refused = sum(task.link is not None and task.outcome is Outcome.ALONE for task in tasks)
    count = len(tasks)
    on_devices = sum(record.num_shared_steps for record in devices)
    # what packets take is counted on the link
    agreeing = device_bytes(topology, records, len(set(setting.owners.values())), 0).get(MESSAGES, 0)
    return Spent(
        steps_devices=(sum(own.values()) + on_devices) / count,
        steps_edges=sum(record.num_shared_steps for record in edges) / count,
        joules_devices=(
            sum(PHONE.image_j(steps) for steps in own.values())
            + sum(PHONE.shared_j(record.num_shared_steps) for record in devices)
            + received
            + sent.get(False, 0.0)
        )
        / count,
        joules_edges=(
            sum(EDGE_SERVER.shared_j(record.num_shared_steps) for record in edges) + sent.get(True, 0.0)
        )
        / count,
        seconds=float(np.mean(seconds)),
        kbit=sum(link.bits_on_air for link in links) / 1e3 / count,
        kbit_messages=8 * agreeing / 1e3 / count,
        shared=sum(task.outcome is Outcome.SHARED for task in tasks) / count,
        lost=refused / len(links) if links else 0.0,
        shared_steps=float(np.mean([record.num_shared_steps for record in sharing])) if sharing else 0.0,
    )
