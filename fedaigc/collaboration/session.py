"""Carry out a plan: shared steps once per group, one packet a member, every task answered once.

The session knows machines only as callables, so that it runs the same over Flower messages, over a resident
agent and in a test. It sees group prompts, packets and reports; prompts and images stay with the devices.
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
    """Run the first `stop` steps of the plan on a group prompt. task_id: the helper's task in the group.

    later: ascending steps to go on to, for members whose channel is too bad at `stop`; for the edge alone.
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
    """Finish a task from `packet`, or alone when there is none.

    noise_seed: of the initial noise when the task runs alone. With a packet, of the stream that this task's
    own steps draw from, 0 where the sampler draws none: never the group's, with which the packet would give
    away the prompt that it was made from.
    """

    client: int
    task_id: str
    plan: DenoisingPlan
    noise_seed: int
    packet: bytes | None


@runtime_checkable
class Peers(Protocol):
    """The devices, asked many at a time. Replies come in the order of the orders, whoever answered first.

    A device that fails or does not answer is a `Failure` in its place, never an exception.
    """

    def share(self, orders: Sequence[ShareOrder]) -> Sequence[SharedSteps | Failure]:
        """Have devices run the shared steps of their groups."""
        ...

    def finish(self, orders: Sequence[FinishOrder]) -> Sequence[FinishReport | Failure]:
        """Have devices finish their tasks."""
        ...


class Outcome(StrEnum):
    """How a task ended."""

    SHARED = "shared"
    ALONE = "alone"
    FAILED = "failed"


@dataclass(frozen=True)
class TaskResult:
    """The end of one task: a report unless it failed, and then the kind of failure.

    link: its packet's way over the simulated link, also when the device did not finish from it; None
    where nothing was sent or no link is simulated. handoff_step: the step before which its packet was packed,
    None without one. packet_bytes: of that packet.
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
    """The end of one group.

    shared: the executor's work, None when nothing was shared.
    share_failure: why the executor failed; its members were then served alone.
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
        """Bytes of the packets sent to the members."""
        return sum(task.packet_bytes for task in self.tasks if task.outcome is Outcome.SHARED)


def carry_out(
    assignments: Sequence[Assignment],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    peers: Peers,
    edge: Callable[[ShareOrder], SharedSteps],
    link: SimulatedLink | None = None,
) -> list[GroupResult]:
    """Serve every task of every group, and return the results in the order of the assignments.

    A device that fails loses its own task only, and one that did not finish from its packet runs the task
    alone, from noise of its own: it does not tell whether the packet, or anything else, was at fault. When a
    helper fails before its packet came, its members are served alone, from the group's noise. An error of the
    edge itself is not caught: it is the server's own.
    link: what the packets cross on their way to the members; None hands them over as they are.
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
    # a packet that was damaged on the way costs its member the sharing, not the image
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
    """The executor's reply for each assignment; None for those that share nothing."""
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
    """The members in task order, each with the step before which its packet leaves."""
    members = [
        Member(task_id, owners[task_id], assignment.num_shared_steps)
        for task_id in sorted(assignment.group.members)
    ]
    if link is None or not assignment.shares:
        return members
    return [replace(m, step=link.departure(m, assignment.later_handoffs)) for m in members]


def _packets(members: Sequence[Member], steps: SharedSteps) -> dict[Member, bytes]:
    """Each member's packet: the executor packed one at K, and before each later step that any waits for."""
    later = sorted({member.step for member in members})[-len(steps.later) :] if steps.later else []
    by_step = dict(zip(later, steps.later, strict=True))
    return {member: by_step.get(member.step, steps.packet) for member in members}


def _not_from_packet(order: FinishOrder, reply: FinishReport | Failure) -> bool:
    return order.packet is not None and reply is Failure.NOT_FINISHED


def _own_stream(assignment: Assignment, member: Member, plan: DenoisingPlan) -> int:
    """The seed of the noise that a member's own steps draw."""
    return derived_seed(assignment.noise_seed, "member", member.task_id) if draws_noise(plan) else 0


def _alone(order: FinishOrder, group_seed: int) -> FinishOrder:
    """The order again without its packet, from noise of the task's own.

    The device may have kept the packet: it must not learn the noise that it began from.
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
