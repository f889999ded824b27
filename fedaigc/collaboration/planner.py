"""Planning: which tasks share denoising steps, how many steps, and which machine computes them.

A group of U tasks needs

    K + U (N - K)

denoiser evaluations, where N is the number of steps of the plan and K the number of shared steps. U solo runs
need U N. Source: [Du23], section "Shared inference".
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fedaigc.collaboration.tree import Branch
from fedaigc.diffusion.handoff.packing import Handoff, can_hand_off, check_shared_steps
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.planning.setting import EDGE
from fedaigc.rng import derived_seed, wide_noise_seed
from fedaigc.semantics.grouping import Group


class Executor(StrEnum):
    """The kind of machine that runs the shared steps of a group."""

    EDGE = EDGE
    MEMBER = "member"


@dataclass(frozen=True)
class Assignment:
    """The work of one group.

    Attributes:
        group: The group.
        executor: "edge", or the client number of the member that runs the shared steps.
        num_shared_steps: K, an index into the plan's timesteps; 0 if each member runs alone.
        noise_seed: Seed of the initial noise, which the members of a group share.
        later_handoffs: Steps past K at which an edge server that waits for a better channel may hand off
            instead. None of them lies past t*, where only the members have the weights.
        taken: The hand-off of each member, by task, where they differ; the first of them is K.
        branches: Steps that some members share on prompts of their own, after the group's.
        direct: Whether the executor, a member, sends to the other devices itself: one packet to each, and none to
            itself.
    """

    group: Group
    executor: str | int
    num_shared_steps: int
    noise_seed: int
    later_handoffs: tuple[int, ...] = ()
    taken: Mapping[str, int] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    direct: bool = False

    @property
    def shares(self) -> bool:
        """Whether a packet is sent at all: with K = 0 every member starts from the noise itself."""
        return self.num_shared_steps > 0


def planned_evaluations(handoffs: Sequence[int], num_steps: int, shared: int | None = None) -> int:
    """Return the planned denoiser evaluations of a group.

        max_u K_u + sum_u (N - K_u),   which is K + U (N - K) for equal K_u

    In a tree the first term is the number of steps of all its lines.

    Args:
        handoffs: Hand-off step K_u of each member; the executor runs up to the last of them.
        num_steps: N, the number of steps of the plan.
        shared: Steps that the executor runs; None: the last hand-off.
    """
    return (max(handoffs) if shared is None else shared) + sum(num_steps - step for step in handoffs)


def plan_assignments(
    groups: Sequence[Group],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    *,
    num_shared_steps: int,
    seed: int | None,
    executor: Executor = Executor.EDGE,
    handoff: Handoff = "exact",
    taken: Mapping[str, int] | None = None,
    branches: Mapping[str, Sequence[Branch]] | None = None,
    elected: Mapping[str, int] | None = None,
) -> list[Assignment]:
    """Assign every group its executor, its number of shared steps and its noise seed, in task order.

    With a seed, the result depends on the tasks and not on the order in which they arrived.

    Args:
        groups: Groups of tasks.
        owners: Client number of the device that holds the prompt, by task id.
        plan: Denoising plan of all groups.
        num_shared_steps: K for groups of two and more. A group of one runs alone, with K = 0 and its own
            prompt.
        seed: Seed of the run, from which the noise seeds are derived. None draws each noise seed from the
            operating system, and all of its bits count (`rng.noise_generator`): if others could guess the
            seed, they would have the noise.
        executor: `MEMBER` selects, group by group, the member's client that has computed for the fewest
            groups so far (the lowest number if equal), to spread the work.
        handoff: Hand-off mode.
        taken: Hand-off of each task of a group of two and more, in place of K; None: K for all.
        branches: Branches of a group, by its smallest task id. Only the edge server runs them.
        elected: The member's client that runs the shared steps, by the smallest task id of a group, and sends to the
            others itself: in place of `executor`, for topologies without an edge.

    Raises:
        UserError: If K or a hand-off lies past the boundary or leaves no step of the plan, or a run cannot resume
            there in this mode.
        ValueError: If a task appears twice or has no owner.
    """
    tasks = Counter(task for group in groups for task in group.members)
    repeated = sorted(task for task, count in tasks.items() if count > 1)
    if repeated or not tasks.keys() <= owners.keys():
        raise ValueError(
            f"each task must be in exactly one group and have an owner: in several groups {repeated}, "
            f"without owner {tasks.keys() - owners.keys()}"
        )
    for step in {num_shared_steps, *(taken or {}).values()}:
        check_shared_steps(plan, step, handoff)
    later = tuple(
        step
        for step in range(num_shared_steps + 1, min(plan.boundary, plan.num_steps - 1) + 1)
        if can_hand_off(plan, step, handoff)
    )
    burden: Counter[int] = Counter()
    assignments = []
    for group in sorted(groups, key=lambda group: min(group.members)):
        chosen: str | int = EDGE
        steps = {task: taken[task] for task in group.members if task in taken} if taken else {}
        shared_steps = min(steps.values(), default=num_shared_steps) if len(group.members) > 1 else 0
        direct = elected is not None and shared_steps > 0
        if elected is not None and shared_steps:
            chosen = elected[min(group.members)]
        elif executor is Executor.MEMBER and shared_steps:
            chosen = min({owners[task] for task in group.members}, key=lambda owner: (burden[owner], owner))
            burden[chosen] += 1
        if seed is None:
            noise_seed = wide_noise_seed(secrets.randbits(63))
        else:
            noise_seed = derived_seed(seed, "noise", min(group.members))
        assignments.append(
            Assignment(
                group,
                chosen,
                shared_steps,
                noise_seed,
                later if shared_steps and chosen == EDGE and not steps else (),
                steps,
                tuple((branches or {}).get(min(group.members), ())),
                direct,
            )
        )
    return assignments
