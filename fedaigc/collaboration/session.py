"""Execution of a plan: shared steps once per group, one packet per member, one answer per task.

The session accesses machines only as callables, so it runs unchanged over Flower messages, over a resident
agent and in a test. It sees group prompts, packets and reports; prompts and images stay on the devices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, runtime_checkable

from fedaigc.collaboration.link import LinkReport, Member, SimulatedLink
from fedaigc.collaboration.planner import EDGE, Assignment
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.diffusion.schedule.noise_draws import draws_noise
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.rng import derived_seed


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
        later: Ascending steps to continue to, for members whose channel is too poor at `stop`; edge server
            only.
    """

    client: str | int
    task_id: str
    group_prompt: str
    noise_seed: int
    plan: DenoisingPlan
    stop: int
    later: tuple[int, ...] = ()


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
    """

    client: int
    task_id: str
    plan: DenoisingPlan
    noise_seed: int
    packet: bytes | None


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


class Outcome(StrEnum):
    """How a task ended."""

    SHARED = "shared"
    ALONE = "alone"
    FAILED = "failed"


@dataclass(frozen=True)
class TaskResult:
    """The result of one task.

    Attributes:
        task_id: The task.
        client: Client number of its device.
        outcome: How the task ended.
        report: Report of the device; None if the task failed.
        failure: Kind of failure; None unless the task failed.
        link: Transmission of its packet over the simulated link, even if the device did not finish from the
            packet. None if nothing was sent or no link is simulated.
        handoff_step: Step before which its packet was packed; None without a packet.
        packet_bytes: Size of the packet; 0 without a packet.
    """

    task_id: str
    client: int
    outcome: Outcome
    report: FinishReport | None
    failure: Failure | None
    link: LinkReport | None = None
    handoff_step: int | None = None
    packet_bytes: int = 0


@dataclass(frozen=True)
class GroupResult:
    """The result of one group.

    Attributes:
        assignment: The work of the group.
        tasks: Results of its tasks, in task order.
        shared: Work of the executor; None if nothing was shared.
        share_failure: Why the executor failed. The members were then served alone.
    """

    assignment: Assignment
    tasks: tuple[TaskResult, ...]
    shared: SharedSteps | None
    share_failure: Failure | None

    @property
    def evaluations(self) -> int:
        """Measured denoiser evaluations: forward passes of the executor and of all members that finished."""
        done = self.shared.denoiser_calls if self.shared else 0
        return done + sum(task.report.denoiser_calls for task in self.tasks if task.report)

    @property
    def samples(self) -> int:
        """Measured denoiser samples: twice the evaluations under classifier-free guidance."""
        done = self.shared.denoiser_samples if self.shared else 0
        return done + sum(task.report.denoiser_samples for task in self.tasks if task.report)

    @property
    def packet_bytes(self) -> int:
        """Total size of the packets from which members finished."""
        return sum(task.packet_bytes for task in self.tasks if task.outcome is Outcome.SHARED)


def carry_out(
    assignments: Sequence[Assignment],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    peers: Peers,
    edge: Callable[[ShareOrder], SharedSteps],
    link: SimulatedLink | None = None,
) -> list[GroupResult]:
    """Serve every task of every group.

    A device that fails loses only its own task. A device that did not finish from its packet runs the task
    alone, from noise of its own; it does not report whether the packet or anything else was at fault. If a
    helper fails before its packet arrives, its members are served alone, from the group's noise. An error of
    the edge server itself is not caught, since it is the server's own.

    Args:
        assignments: Work of each group.
        owners: Client number of the device that holds the prompt, by task id.
        plan: Denoising plan of all groups.
        peers: The devices.
        edge: Runs the shared steps of one order on the edge server.
        link: Link that the packets cross to the members; None delivers them unchanged.

    Returns:
        Results in the order of the assignments.
    """
    departures = [_departures(link, assignment, owners) for assignment in assignments]
    shared = _share(assignments, departures, owners, plan, peers, edge)
    orders: list[FinishOrder] = []
    sent: dict[str, tuple[LinkReport | None, int, int]] = {}
    for assignment, leaving, steps in zip(assignments, departures, shared, strict=True):
        packets = _packets(leaving, steps) if isinstance(steps, SharedSteps) else {}
        arrived = link.send(packets) if link is not None else {m: (p, None) for m, p in packets.items()}
        for member in leaving:
            packet, report = arrived.get(member, (None, None))
            noise_seed = assignment.noise_seed if packet is None else _own_stream(assignment, member, plan)
            orders.append(FinishOrder(member.client, member.task_id, plan, noise_seed, packet))
            if packet is not None:
                sent[member.task_id] = (report, member.step, len(packets[member]))
    replies = list(peers.finish(orders))
    # a packet damaged on the link costs its member the shared steps, not the image
    refused = [index for index, reply in enumerate(replies) if _not_from_packet(orders[index], reply)]
    if refused:
        seeds = {task: found.noise_seed for found in assignments for task in found.group.members}
        for index in refused:
            orders[index] = _alone(orders[index], seeds[orders[index].task_id])
        for index, reply in zip(refused, peers.finish([orders[i] for i in refused]), strict=True):
            replies[index] = reply
    results = [
        _task_result(order, reply, *sent.get(order.task_id, (None, None, 0)))
        for order, reply in zip(orders, replies, strict=True)
    ]
    by_task = {result.task_id: result for result in results}
    return [
        GroupResult(
            assignment,
            tuple(by_task[task_id] for task_id in sorted(assignment.group.members)),
            steps if isinstance(steps, SharedSteps) else None,
            steps if isinstance(steps, Failure) else None,
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
) -> list[SharedSteps | Failure | None]:
    """Return the executor's reply for each assignment; None for those that share nothing."""
    replies: list[SharedSteps | Failure | None] = [None] * len(assignments)
    for_devices: list[tuple[int, ShareOrder]] = []
    for index, assignment in enumerate(assignments):
        if not assignment.shares:
            continue
        members = sorted(assignment.group.members)
        own = [task for task in members if owners[task] == assignment.executor]
        order = ShareOrder(
            client=assignment.executor,
            task_id=own[0] if own else members[0],
            group_prompt=assignment.group.prompt,
            noise_seed=assignment.noise_seed,
            plan=plan,
            stop=assignment.num_shared_steps,
            later=tuple(sorted({m.step for m in departures[index]} - {assignment.num_shared_steps})),
        )
        if assignment.executor == EDGE:
            replies[index] = edge(order)
        else:
            for_devices.append((index, order))
    if for_devices:
        for (index, _), reply in zip(
            for_devices, peers.share([order for _, order in for_devices]), strict=True
        ):
            replies[index] = reply
    return replies


def _departures(
    link: SimulatedLink | None, assignment: Assignment, owners: Mapping[str, int]
) -> list[Member]:
    """Return the members in task order, each with its hand-off step."""
    members = [
        Member(task_id, owners[task_id], assignment.num_shared_steps)
        for task_id in sorted(assignment.group.members)
    ]
    if link is None or not assignment.shares:
        return members
    return [replace(m, step=link.departure(m, assignment.later_handoffs)) for m in members]


def _packets(members: Sequence[Member], steps: SharedSteps) -> dict[Member, bytes]:
    """Return each member's packet.

    The executor packs one packet at K, and one before each later step for which a member waits.
    """
    later = sorted({member.step for member in members})[-len(steps.later) :] if steps.later else []
    by_step = dict(zip(later, steps.later, strict=True))
    return {member: by_step.get(member.step, steps.packet) for member in members}


def _not_from_packet(order: FinishOrder, reply: FinishReport | Failure) -> bool:
    return order.packet is not None and reply is Failure.NOT_FINISHED


def _own_stream(assignment: Assignment, member: Member, plan: DenoisingPlan) -> int:
    """Return the seed of the noise that a member's own steps draw; 0 if they draw none."""
    return derived_seed(assignment.noise_seed, "member", member.task_id) if draws_noise(plan) else 0


def _alone(order: FinishOrder, group_seed: int) -> FinishOrder:
    """Return the order without its packet, with noise of the task's own.

    The device may have kept the packet, so it must not learn the noise from which the packet was made.
    """
    noise_seed = derived_seed(group_seed, "alone", order.task_id)
    return replace(order, packet=None, noise_seed=noise_seed)


def _task_result(
    order: FinishOrder,
    reply: FinishReport | Failure,
    link: LinkReport | None,
    handoff_step: int | None,
    packet_bytes: int,
) -> TaskResult:
    alone = order.packet is None
    outcome = Outcome.FAILED if isinstance(reply, Failure) else Outcome.ALONE if alone else Outcome.SHARED
    report, failure = (None, reply) if isinstance(reply, Failure) else (reply, None)
    return TaskResult(order.task_id, order.client, outcome, report, failure, link, handoff_step, packet_bytes)
