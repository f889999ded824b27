"""What a plan costs: evaluations, steps by machine, joules, bits and seconds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.setting import EDGE, Setting, Weights
from fedaigc.planning.tasks import Tasks

_ROUNDING_S = 1e-6


@dataclass(frozen=True)
class PlanCost:
    """The cost of a plan.

    Attributes:
        evaluations: Denoising steps of all machines; a batch of n counts n.
        alone: The same if every task ran alone.
        edge_steps: Those of the edge server.
        helper_steps: Those that devices run for a node.
        own_steps: Those that devices run for their own tasks.
        packets: Packets sent.
        bits: Bits on air.
        joules: Joules of all machines and packets.
        mean_seconds, last_seconds: Mean and maximum of the seconds until a picture is finished.
    """

    evaluations: int
    alone: int
    edge_steps: int
    helper_steps: int
    own_steps: int
    packets: int
    bits: int
    joules: float
    mean_seconds: float
    last_seconds: float

    @property
    def saved(self) -> float:
        """Share of the evaluations that is saved."""
        return 1 - self.evaluations / self.alone if self.alone else 0.0


def plan_cost(plan: Plan, tasks: Tasks, setting: Setting) -> PlanCost:
    """Return the cost of a plan."""
    machines, steps = setting.machines, setting.curve.steps
    edge = sum(node.stop - node.start for node in plan.nodes if node.executor == EDGE)
    helper, joules = 0, edge * machines.edge.step_j
    for node in plan.nodes:
        if node.executor != EDGE:
            helper += node.stop - node.start
            joules += (node.stop - node.start) * helper_class(node, tasks, setting)[1]
    own = steps - plan.handoffs
    for kind, device in enumerate(machines.devices):
        mine = tasks.classes == kind
        joules += float(own[mine].sum()) * device.step_j + float(mine.sum()) * device.image_j
    packets = count_packets(plan, tasks)
    seconds = finish_seconds(plan, tasks, setting)
    return PlanCost(
        evaluations=edge + helper + int(own.sum()),
        alone=steps * len(tasks),
        edge_steps=edge,
        helper_steps=helper,
        own_steps=int(own.sum()),
        packets=packets,
        bits=packets * machines.link.bits,
        joules=joules + packets * machines.link.joules,
        mean_seconds=float(seconds.mean()) if len(tasks) else 0.0,
        last_seconds=float(seconds.max(initial=0.0)),
    )


def weighted_cost(plan: Plan, tasks: Tasks, setting: Setting, weights: Weights | None = None) -> float:
    """Return the cost that planners minimise.

    Args:
        plan: The plan.
        tasks: The tasks.
        setting: The setting.
        weights: Weights other than those of the setting.
    """
    chosen = weights or setting.weights
    shared = sum(node.stop - node.start for node in plan.nodes)
    own = np.asarray(chosen.own_step)[tasks.classes] * (setting.curve.steps - plan.handoffs)
    packets = int((plan.handoffs > 0).sum())
    return chosen.shared_step * shared + float(own.sum()) + chosen.packet * packets


def count_packets(plan: Plan, tasks: Tasks) -> int:
    """Return the number of packets.

    One to each task that hands off, unless its own device ran the node; one to each node whose parent has another
    executor.
    """
    last = last_nodes(plan, len(tasks))
    found = 0
    for index, node in enumerate(plan.nodes):
        leaving = node.members[last[node.members] == index]
        found += int((tasks.users[leaving] != node.executor).sum()) if node.executor != EDGE else len(leaving)
        found += node.parent is not None and plan.nodes[node.parent].executor != node.executor
    return found


def last_nodes(plan: Plan, number: int) -> np.ndarray:
    """Return the index of the last node that holds each of `number` tasks; -1 for none."""
    last = np.full(number, -1)
    for index, node in enumerate(plan.nodes):
        last[node.members] = index
    return last


def misses_deadline(plan: Plan, tasks: Tasks, setting: Setting, now: float) -> Bool[np.ndarray, " n"]:
    """Return which tasks miss their deadline in a plan that starts at `now`, by more than a rounding error.

    A stream serves a task at its deadline minus the seconds that it takes alone, and the sum of both is rounded.
    """
    return np.asarray(now + finish_seconds(plan, tasks, setting) > tasks.deadlines + _ROUNDING_S)


def finish_seconds(plan: Plan, tasks: Tasks, setting: Setting) -> Float[np.ndarray, " n"]:
    """Return the seconds from the start of the plan until each picture is finished.

    The edge server runs step after step, each for all nodes that need it, in batches. A helper runs its nodes one after
    the other, parents first, and its own task after them. A device finishes its tasks independently of each other.
    """
    machines, last = setting.machines, last_nodes(plan, len(tasks))
    active = np.zeros(setting.curve.steps + 1, int)
    for node in plan.nodes:
        if node.executor == EDGE:
            active[node.start : node.stop] += 1
    clock = np.cumsum([0.0, *(machines.edge.seconds(int(number)) for number in active[:-1])])
    free: dict[str | int, float] = {}
    ready = np.zeros(len(plan.nodes))
    for index, node in enumerate(plan.nodes):
        if node.executor == EDGE:
            ready[index] = clock[node.stop]
            continue
        begin = 0.0
        if node.parent is not None:
            moved = plan.nodes[node.parent].executor != node.executor
            begin = ready[node.parent] + machines.link.seconds * moved
        begin = max(begin, free.get(node.executor, 0.0))
        ready[index] = begin + (node.stop - node.start) * helper_class(node, tasks, setting)[0]
        free[node.executor] = ready[index]
    seconds = np.zeros(len(tasks))
    held = last >= 0
    executors = [plan.nodes[index].executor for index in last[held]]
    sent = np.array(
        [user != by for user, by in zip(tasks.users[held].tolist(), executors, strict=True)], bool
    )
    seconds[held] = ready[last[held]] + machines.link.seconds * sent
    for user, until in free.items():
        mine = tasks.users == user
        seconds[mine] = np.maximum(seconds[mine], until)
    step_s = np.array([device.step_s for device in machines.devices])[tasks.classes]
    image_s = np.array([device.image_s for device in machines.devices])[tasks.classes]
    return np.asarray(seconds + (setting.curve.steps - plan.handoffs) * step_s + image_s)


def helper_class(node: Node, tasks: Tasks, setting: Setting) -> tuple[float, float]:
    """Return seconds and joules of a step of the member that runs a node."""
    row = node.members[np.flatnonzero(tasks.users[node.members] == node.executor)[0]]
    device = setting.machines.devices[int(tasks.classes[row])]
    return device.step_s, device.step_j
