"""Groups whose members do not all share on one prompt: a tree of lines, each with a prompt and steps of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedaigc.device.shared_steps import Line


@dataclass(frozen=True)
class Branch:
    """Steps that some members of a group share, after steps that more of them shared.

    The group's own prompt and steps are line 0 of the tree; its branches are lines 1, 2, ...

    Attributes:
        members: Task ids, ascending.
        prompt: The public prompt of these steps.
        start: The first of these steps.
        stop: The step after the last one.
        parent: Number of the line whose steps they continue; it stands before the branch.
        node: The node of an atlas whose caption the prompt is; None: the prompt is no caption.
    """

    members: tuple[str, ...]
    prompt: str
    start: int
    stop: int
    parent: int = 0
    node: int | None = None


def last_lines(members: Sequence[str], branches: Sequence[Branch]) -> dict[str, int]:
    """Return the number of the last line that each member is in."""
    found = dict.fromkeys(members, 0)
    for number, branch in enumerate(branches, start=1):
        found |= dict.fromkeys(branch.members, number)
    return found


def lines_of(prompt: str, branches: Sequence[Branch], handoffs: Mapping[str, int]) -> list[Line]:
    """Return the lines of a group as its executor runs them, with a packet at each step where a member leaves.

    Args:
        prompt: The group's public prompt.
        branches: Its branches.
        handoffs: Hand-off of each member.
    """
    last = last_lines(tuple(handoffs), branches)
    leaving = [{handoffs[task] for task in handoffs if last[task] == n} for n in range(len(branches) + 1)]
    ends = [max({*leaving[0], *(branch.start for branch in branches if not branch.parent)})]
    ends += [branch.stop for branch in branches]
    starts = [(0, 0), *((branch.start, branch.parent) for branch in branches)]
    prompts = [prompt, *(branch.prompt for branch in branches)]
    return [
        Line(prompts[n], starts[n][0], tuple(sorted(leaving[n] | {ends[n]})), starts[n][1])
        for n in range(len(prompts))
    ]


def executor_steps(lines: Sequence[Line]) -> int:
    """Return how many steps an executor runs for a tree."""
    return sum(line.stops[-1] - line.start for line in lines)


@dataclass(frozen=True)
class Shared:
    """Who shares which steps in one tree.

    Attributes:
        handoffs: Hand-off of each task; 0: it runs alone.
        branches: The branches that are left.
    """

    handoffs: dict[str, int]
    branches: tuple[Branch, ...]


def settled(branches: Sequence[Branch], handoffs: Mapping[str, int]) -> Shared:
    """Return a tree in which no machine runs shared steps for one task alone.

    A branch that one task is left in goes, and the task leaves where the branch began; on every line the last task
    leaves with the one before it.

    Args:
        branches: The branches, as they were planned.
        handoffs: The last step at which each task of the tree may leave; 0: it runs alone.
    """
    left = dict(handoffs)
    kept: dict[int, Branch] = {}
    for number in range(len(branches), -1, -1):
        branch = branches[number - 1] if number else None
        start = branch.start if branch is not None else 0
        inside = [task for task in (branch.members if branch is not None else left) if left[task] > start]
        if len(inside) < 2:
            left |= dict.fromkeys(inside, start)
            continue
        exits = {task: left[task] for task in inside}
        for child in kept.values():
            if child.parent == number:
                exits |= dict.fromkeys(child.members, child.start)
        *_, before, last = sorted(exits.values())
        if before < last:
            left |= {task: before for task, at in exits.items() if at == last}
        if branch is not None:
            kept[number] = replace(branch, members=tuple(sorted(inside)), stop=before)
    numbers = {0: 0} | {number: at for at, number in enumerate(sorted(kept), start=1)}
    return Shared(
        left, tuple(replace(kept[number], parent=numbers[kept[number].parent]) for number in sorted(kept))
    )


def nodes_along(task: str, node: int, branches: Sequence[Branch], ladder: Sequence[int]) -> list[int]:
    """Return, for each hand-off up to the end of the task's last line, the atlas node whose caption its steps run on.

    Args:
        task: The task.
        node: The node of the group's own prompt.
        branches: The branches of the group.
        ladder: The hand-offs, ascending.
    """
    own = [branch for branch in branches if task in branch.members]
    found = []
    for step in ladder:
        along = [branch for branch in own if branch.start < step]
        found.append(along[-1].node if along and along[-1].node is not None else node)
    return found
