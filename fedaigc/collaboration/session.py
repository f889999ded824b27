"""Execution of a plan: shared steps once per group, one packet per member, one answer per task.

The session accesses machines only as callables, so it runs unchanged over Flower messages, over a resident
agent and in a test. It sees group prompts, packets and reports; prompts and images stay on the devices.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from fedaigc.collaboration.conditioning import GroupConditioning
from fedaigc.collaboration.link import LinkReport, Member, SimulatedLink
from fedaigc.collaboration.planner import Assignment
from fedaigc.collaboration.results import GroupRecord, Outcome, TaskRecord, group_record
from fedaigc.collaboration.tree import last_lines, lines_of
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.device.shared_steps import Line
from fedaigc.diffusion.schedule.noise_draws import draws_noise
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import NotFinite
from fedaigc.planning.setting import EDGE
from fedaigc.rng import derived_seed
from fedaigc.semantics.disclosed import Disclosed


@dataclass(frozen=True)
class TwinSteps:
    """Steps that a member ran on its own prompt, for others of whom an equality test said that they have the same one.

    Attributes:
        number: Number of the equality test.
        executor: The executor's key in it.
        members: The keys of all who receive the packet, the executor among them; none in an order to finish.
        stop: The hand-off step.
    """

    number: str
    executor: bytes
    members: tuple[bytes, ...]
    stop: int


@dataclass(frozen=True)
class Twin:
    """What a task is in an equality test.

    Attributes:
        number: Number of the test.
        key: The key that its device announced.
    """

    number: str
    key: bytes


@dataclass(frozen=True)
class ShareOrder:
    """Order to run the first `stop` steps of the plan on a group prompt.

    Attributes:
        client: "edge", or the helper's client number.
        task_id: The helper's task in the group.
        group_prompt: Public prompt of the group.
        noise_seed: Seed of the initial noise.
        plan: Denoising plan.
        stop: Number of shared steps.
        later: Ascending steps to continue to, for members that hand off later; edge server only.
        conditioning: Tensors that the steps run on in place of the group prompt; None: on the prompt.
        twins: Where the steps run on the executor's own prompt, who receives them. None: on the group prompt.
        lines: Further lines of a tree, which continue these steps; edge server only.
    """

    client: str | int
    task_id: str
    group_prompt: str
    noise_seed: int
    plan: DenoisingPlan
    stop: int
    later: tuple[int, ...] = ()
    conditioning: Mapping[str, Tensor] | None = field(default=None, compare=False)
    twins: TwinSteps | None = None
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class FinishOrder:
    """Order to finish a task from a packet, or alone.

    Attributes:
        client: Client number of the device.
        task_id: Task to finish.
        plan: Denoising plan.
        noise_seed: Without a packet, seed of the initial noise. With a packet, seed of the stream that this
            task's own steps draw from, 0 if the sampler draws no noise. It is never the group's seed:
            together with the packet, that seed would reveal the prompt from which the packet was made.
        packet: Packet to finish from; None to run alone.
        twins: Who sealed the packet, if only members with the same prompt can open it.
    """

    client: int
    task_id: str
    plan: DenoisingPlan
    noise_seed: int
    packet: bytes | None
    twins: TwinSteps | None = None


RunBatched = Callable[[Sequence[ShareOrder]], Sequence[SharedSteps | Failure]]


@runtime_checkable
class Peers(Protocol):
    """The devices, which are asked in batches.

    Replies have the order of the orders, independent of the order of arrival. A device that fails or does not
    answer has a `Failure` in its place, never an exception.
    """

    def share(self, orders: Sequence[ShareOrder]) -> Sequence[SharedSteps | Failure]:
        """Ask devices to run the shared steps of their groups."""
        ...

    def finish(self, orders: Sequence[FinishOrder]) -> Sequence[FinishReport | Failure]:
        """Ask devices to finish their tasks."""
        ...


def carry_out(
    assignments: Sequence[Assignment],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    peers: Peers,
    edge: Callable[[ShareOrder], SharedSteps],
    link: SimulatedLink | None = None,
    signatures: Mapping[str, Disclosed | None] | None = None,
    conditionings: Mapping[str, GroupConditioning] | None = None,
    twins: Mapping[str, Twin] | None = None,
    batched: RunBatched | None = None,
) -> list[GroupRecord]:
    """Serve every task of every group.

    A device that fails loses only its own task. A device that did not finish from its packet runs the task
    alone, from noise of its own; it does not report whether the packet or anything else was at fault. If a
    helper fails before its packet arrives, its members are served alone, from the group's noise. So are those whose
    shared steps are not finite on the edge server. Its other errors are not caught, since they are the server's own.

    Args:
        assignments: Work of each group.
        owners: Client number of the device that holds the prompt, by task id.
        plan: Denoising plan of all groups.
        peers: The devices.
        edge: Runs the shared steps of one order on the edge server.
        link: Link that the packets cross to the members; None delivers them unchanged.
        signatures: What was disclosed of each task, for the records.
        conditionings: By task id, what its group's shared steps run on; None, and tasks that are not there: the
            public prompt.
        twins: The tasks whose groups run on a member's own prompt, which all members have; no link may be between them.
        batched: Runs the shared steps of several orders on the edge server in place of `edge`.

    Returns:
        Records in the order of the assignments.
    """
    departures = [_departures(link, assignment, owners) for assignment in assignments]
    given = conditionings or {}
    twin_steps = [_twin_steps(assignment, owners, twins or {}) for assignment in assignments]
    shared = _share(assignments, departures, owners, plan, peers, edge, given, twin_steps, batched)
    orders: list[FinishOrder] = []
    sent: dict[str, tuple[LinkReport | None, int, int]] = {}
    for assignment, leaving, steps, sealed in zip(assignments, departures, shared, twin_steps, strict=True):
        packets = _packets(assignment, leaving, steps) if isinstance(steps, SharedSteps) else {}
        carriers = _carriers(assignment, packets)
        sending = {member: packet for member, packet in packets.items() if carriers[member] == member}
        arrived = link.send(sending) if link is not None else {m: (p, None) for m, p in sending.items()}
        for member in leaving:
            carrier = carriers.get(member)
            packet, report = arrived[carrier] if carrier is not None else (packets.get(member), None)
            noise_seed = assignment.noise_seed if packet is None else _own_stream(assignment, member, plan)
            opens = replace(sealed, members=()) if sealed is not None and packet is not None else None
            orders.append(FinishOrder(member.client, member.task_id, plan, noise_seed, packet, opens))
            if packet is not None:
                crossed = carrier == member
                size = len(packets[member]) if crossed else 0
                sent[member.task_id] = (report if crossed else None, member.step, size)
    replies = list(peers.finish(orders))
    # a packet damaged on the link costs its member the shared steps, not the image
    refused = [index for index, reply in enumerate(replies) if _not_from_packet(orders[index], reply)]
    if refused:
        seeds = {task: found.noise_seed for found in assignments for task in found.group.members}
        for index in refused:
            orders[index] = _alone(orders[index], seeds[orders[index].task_id])
        for index, reply in zip(refused, peers.finish([orders[i] for i in refused]), strict=True):
            replies[index] = reply
    disclosed = signatures or {}
    tasks = {
        order.task_id: _task_record(order, reply, disclosed.get(order.task_id), sent.get(order.task_id))
        for order, reply in zip(orders, replies, strict=True)
    }
    return [
        group_record(
            assignment,
            steps,
            tasks,
            {task: size for task, (_, _, size) in sent.items()},
            plan,
            given.get(min(assignment.group.members), GroupConditioning()),
        )
        for assignment, steps in zip(assignments, shared, strict=True)
    ]


def _share(
    assignments: Sequence[Assignment],
    departures: Sequence[Sequence[Member]],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    peers: Peers,
    edge: Callable[[ShareOrder], SharedSteps],
    conditionings: Mapping[str, GroupConditioning],
    twin_steps: Sequence[TwinSteps | None],
    batched: RunBatched | None,
) -> list[SharedSteps | Failure | None]:
    """Return the executor's reply for each assignment; None for those that share nothing."""
    replies: list[SharedSteps | Failure | None] = [None] * len(assignments)
    for_devices: list[tuple[int, ShareOrder]] = []
    for_batches: list[tuple[int, ShareOrder]] = []
    for index, assignment in enumerate(assignments):
        if not assignment.shares:
            continue
        members = sorted(assignment.group.members)
        conditioning = conditionings.get(members[0], GroupConditioning())
        stop, later = assignment.num_shared_steps, {member.step for member in departures[index]}
        lines = _lines(assignment, departures[index])
        if len(lines) > 1:
            stop, later = lines[0].stops[0], set(lines[0].stops)
        order = ShareOrder(
            client=assignment.executor,
            task_id=_executing(assignment, owners),
            group_prompt=assignment.group.prompt,
            noise_seed=assignment.noise_seed,
            plan=plan,
            stop=stop,
            later=tuple(sorted(later - {stop})),
            conditioning=conditioning.tensors,
            twins=twin_steps[index],
            lines=tuple(lines[1:]),
        )
        if assignment.executor == EDGE and batched is not None:
            for_batches.append((index, order))
        elif assignment.executor == EDGE:
            try:
                replies[index] = edge(order)
            except NotFinite:
                replies[index] = Failure.NOT_FINITE
        else:
            for_devices.append((index, order))
    if batched is not None and for_batches:
        answers = batched([order for _, order in for_batches])
        for (index, _), answer in zip(for_batches, answers, strict=True):
            replies[index] = answer
    if for_devices:
        for (index, _), reply in zip(
            for_devices, peers.share([order for _, order in for_devices]), strict=True
        ):
            replies[index] = reply
    return replies


def _executing(assignment: Assignment, owners: Mapping[str, int]) -> str:
    """Return the executor's first task in the group; for the edge server, the group's first one."""
    members = sorted(assignment.group.members)
    return next((task for task in members if owners[task] == assignment.executor), members[0])


def _twin_steps(
    assignment: Assignment, owners: Mapping[str, int], twins: Mapping[str, Twin]
) -> TwinSteps | None:
    members = sorted(assignment.group.members)
    if not assignment.shares or members[0] not in twins:
        return None
    executor = twins[_executing(assignment, owners)]
    keys = tuple(twins[task].key for task in members)
    return TwinSteps(executor.number, executor.key, keys, assignment.num_shared_steps)


def _departures(
    link: SimulatedLink | None, assignment: Assignment, owners: Mapping[str, int]
) -> list[Member]:
    """Return the members in task order, each with its hand-off step."""
    members = [
        Member(task_id, owners[task_id], assignment.taken.get(task_id, assignment.num_shared_steps))
        for task_id in sorted(assignment.group.members)
    ]
    if link is None or not assignment.shares:
        return members
    return [replace(m, step=link.departure(m, assignment.later_handoffs)) for m in members]


def _lines(assignment: Assignment, members: Sequence[Member]) -> list[Line]:
    """Return the lines of a group's tree; for one without branches, its only one."""
    handoffs = {member.task_id: member.step for member in members}
    return lines_of(assignment.group.prompt, assignment.branches, handoffs)


def _packets(assignment: Assignment, members: Sequence[Member], steps: SharedSteps) -> dict[Member, bytes]:
    """Return each member's packet.

    The executor packs one packet at K, and one before each later step for which a member waits; of a tree, line by
    line.
    """
    if assignment.branches:
        places = [(n, step) for n, line in enumerate(_lines(assignment, members)) for step in line.stops]
        packed = dict(zip(places, (steps.packet, *steps.later), strict=True))
        last = last_lines(assignment.group.members, assignment.branches)
        return {member: packed[last[member.task_id], member.step] for member in members}
    later = sorted({member.step for member in members})[-len(steps.later) :] if steps.later else []
    by_step = dict(zip(later, steps.later, strict=True))
    return {member: by_step.get(member.step, steps.packet) for member in members}


def _carriers(assignment: Assignment, members: Iterable[Member]) -> dict[Member, Member | None]:
    """Return with whose packet each member's arrives: its own.

    A device that sends to others directly sends one to each device, with which those of its other tasks arrive; None
    on the executor, which has it.
    """
    if not assignment.direct:
        return {member: member for member in members}
    first: dict[tuple[int, int], Member] = {}
    carriers: dict[Member, Member | None] = {}
    for member in members:
        carrier = first.setdefault((member.client, member.step), member)
        carriers[member] = None if member.client == assignment.executor else carrier
    return carriers


def _not_from_packet(order: FinishOrder, reply: FinishReport | Failure) -> bool:
    return order.packet is not None and reply in (Failure.NOT_FINISHED, Failure.NOT_FINITE)


def _own_stream(assignment: Assignment, member: Member, plan: DenoisingPlan) -> int:
    """Return the seed of the noise that a member's own steps draw; 0 if they draw none."""
    return derived_seed(assignment.noise_seed, "member", member.task_id) if draws_noise(plan) else 0


def _alone(order: FinishOrder, group_seed: int) -> FinishOrder:
    """Return the order without its packet, with noise of the task's own.

    The device may have kept the packet, so it must not learn the noise from which the packet was made.
    """
    noise_seed = derived_seed(group_seed, "alone", order.task_id)
    return replace(order, packet=None, noise_seed=noise_seed, twins=None)


def _task_record(
    order: FinishOrder,
    reply: FinishReport | Failure,
    signature: Disclosed | None,
    sent: tuple[LinkReport | None, int, int] | None,
) -> TaskRecord:
    failed, alone = isinstance(reply, Failure), order.packet is None
    return TaskRecord(
        task_id=order.task_id,
        client=order.client,
        disclosed=asdict(signature) if signature is not None else None,
        outcome=Outcome.FAILED if failed else Outcome.ALONE if alone else Outcome.SHARED,
        report=None if isinstance(reply, Failure) else reply,
        failure=reply if isinstance(reply, Failure) else None,
        handoff_step=sent[1] if sent is not None else None,
        link=sent[0] if sent is not None else None,
    )
