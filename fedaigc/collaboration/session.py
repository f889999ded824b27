"""Carry out a plan: shared steps once per group, one packet a member, every task answered once.

The session knows machines only as callables, so that it runs the same over Flower messages, over a resident
agent and in a test. It sees group prompts, packets and reports; prompts and images stay with the devices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, runtime_checkable

from fedaigc.collaboration.link import LinkReport, SimulatedLink
from fedaigc.collaboration.planner import EDGE, Assignment
from fedaigc.device.report import Failure, FinishReport, SharedSteps
from fedaigc.diffusion.plan import DenoisingPlan


@dataclass(frozen=True)
class ShareOrder:
    """Run the first `stop` steps of the plan on a group prompt. task_id: the helper's task in the group."""

    partition: str | int
    task_id: str
    group_prompt: str
    noise_seed: int
    plan: DenoisingPlan
    stop: int


@dataclass(frozen=True)
class FinishOrder:
    """Finish a task from `packet`, or alone from the noise of `noise_seed` when there is none."""

    partition: int
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

    link: its packet's way over the simulated link, also when the device refused the packet in the end; None
    where nothing was sent or no link is simulated.
    """

    task_id: str
    partition: int
    outcome: Outcome
    report: FinishReport | None
    failure: Failure | None
    link: LinkReport | None = None


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
        served = sum(task.outcome is Outcome.SHARED for task in self.tasks)
        return served * len(self.shared.packet) if self.shared else 0


def carry_out(
    assignments: Sequence[Assignment],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    peers: Peers,
    edge: Callable[[ShareOrder], SharedSteps],
    progress: Callable[[int], None] | None = None,
    link: SimulatedLink | None = None,
) -> list[GroupResult]:
    """Serve every task of every group, and return the results in the order of the assignments.

    A device that fails loses its own task only, and one that refuses its packet runs the task alone. When a
    helper fails before its packet came, its members are served alone, from the same noise. An error of the
    edge itself is not caught: it is the server's own. progress: called with the number of tasks served.
    link: what the packets cross on their way to the members; None hands them over as they are.
    """
    shared = _share(assignments, owners, plan, peers, edge)
    orders = [
        FinishOrder(
            partition=owners[task_id],
            task_id=task_id,
            plan=plan,
            noise_seed=assignment.noise_seed,
            packet=steps.packet if isinstance(steps, SharedSteps) else None,
        )
        for assignment, steps in zip(assignments, shared, strict=True)
        for task_id in sorted(assignment.group.members)
    ]
    orders, links = _over(link, orders)
    replies = list(peers.finish(orders))
    # a packet that was damaged on the way costs its member the sharing, not the image
    refused = [index for index, reply in enumerate(replies) if _refused_packet(orders[index], reply)]
    if refused:
        for index in refused:
            orders[index] = replace(orders[index], packet=None)
        for index, reply in zip(refused, peers.finish([orders[i] for i in refused]), strict=True):
            replies[index] = reply
    results = [
        replace(_task_result(order, reply), link=links[order.task_id])
        for order, reply in zip(orders, replies, strict=True)
    ]
    if progress is not None:
        progress(len(results))
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
            partition=assignment.executor,
            task_id=own[0] if own else members[0],
            group_prompt=assignment.group.prompt,
            noise_seed=assignment.noise_seed,
            plan=plan,
            stop=assignment.num_shared_steps,
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


def _over(
    link: SimulatedLink | None, orders: list[FinishOrder]
) -> tuple[list[FinishOrder], dict[str, LinkReport | None]]:
    """The orders with their packets as they arrive, and each packet's way."""
    arrived, reports = [], {}
    for order in orders:
        report = None
        if link is not None and order.packet is not None:
            packet, report = link.send(order.packet, order.task_id)
            order = replace(order, packet=packet)
        arrived.append(order)
        reports[order.task_id] = report
    return arrived, reports


def _refused_packet(order: FinishOrder, reply: FinishReport | Failure) -> bool:
    return order.packet is not None and reply is Failure.PACKET_REFUSED


def _task_result(order: FinishOrder, reply: FinishReport | Failure) -> TaskResult:
    if isinstance(reply, Failure):
        return TaskResult(order.task_id, order.partition, Outcome.FAILED, None, reply)
    outcome = Outcome.ALONE if order.packet is None else Outcome.SHARED
    return TaskResult(order.task_id, order.partition, outcome, reply, None)
