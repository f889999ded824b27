"""What a run did with the prompts, in lines for a terminal.

The prompts stand in the homes alone: whoever owns the homes sees them, and a server of other devices does not.
"""

import json
from collections import Counter
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from pathlib import Path

from fedaigc.collaboration.results import GroupRecord, Outcome, TaskRecord
from fedaigc.counting import counted
from fedaigc.device.home.gallery import Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, Task, TaskStatus
from fedaigc.device.replies import UnknownTask
from fedaigc.errors import UserError
from fedaigc.federation.output.records import RunRecord
from fedaigc.semantics.disclosed import in_words

HomeOf = Callable[[int], Path]
PictureOf = Callable[[int, str], Path]


def gallery_picture(home: HomeOf) -> PictureOf:
    """Return where devices with these homes keep the picture of a task."""
    return lambda client, task_id: Gallery(Home(home(client))).path(task_id)


def generation_lines(
    record: RunRecord, home: HomeOf | None = None, picture: PictureOf | None = None
) -> list[str]:
    """Return the groups of the last generation, its prompts in the order in which they were queued, and the savings.

    Args:
        record: The record of the run.
        home: The home of each client, where this machine has them: the prompts stand there.
        picture: The path of a picture by client and task id; default: in the gallery of the home.
    """
    if record.generation is None or not record.generation.groups:
        return []
    groups = record.generation.groups
    shown = picture or (gallery_picture(home) if home is not None else None)
    number: dict[str, int] = {}
    ungrouped = {group.tasks[0].task_id for group in groups if len(group.tasks) == 1}
    lines: list[str] = []
    shared = [group for group in groups if group.num_shared_steps and len(group.tasks) > 1]
    for at, group in enumerate(shared, start=1):
        number |= dict.fromkeys((task.task_id for task in group.tasks), at)
        lines.append(f"group {at}: {_told_group(group)}")
        lines += [f"  then {each}" for each in _told_branches(group)]
    told: list[tuple[tuple[int, int], str]] = []
    equal = {task.task_id for group in groups if group.conditioning == "own" for task in group.tasks}
    for task in (task for group in groups for task in group.tasks):
        queued = _queued(task, home)
        parts = [f"“{queued.prompt}”" if queued is not None else f"client {task.client}"]
        further = " but" if task.disclosed is None else " and"
        also = f"{further} that it equals others" if task.task_id in equal else ""
        parts.append(f"disclosed {disclosed_words(task)}{also}")
        if task.outcome is Outcome.FAILED:
            parts.append(f"not drawn: {task.failure}{_left(queued, task, home)}")
        else:
            shares = task.outcome is Outcome.SHARED and task.task_id in number
            parts.append(f"group {number[task.task_id]}" if shares else _alone(task, ungrouped, home))
            if shown is not None:
                parts.append(str(shown(task.client, queued.task_id if queued else task.task_id)))
        order = (task.client, queued.number if queued is not None else len(told))
        told.append((order, ", ".join(parts)))
    told.sort(key=lambda each: each[0])
    lines += [line for _, line in told]
    lines.append(savings_line(groups, record.generation.num_steps))
    if sent := record.generation.device_bytes:
        lines.append(
            f"devices would send each other {sent['messages'] / 1e6:.2f} MB of messages and "
            f"{sent['packets'] / 1e6:.2f} MB of packets"
        )
    return lines


def _left(queued: Task | None, task: TaskRecord, home: HomeOf | None) -> str:
    """Return what became of a prompt that was not drawn, as far as its home tells."""
    if queued is None or home is None:
        return ""
    if queued.status is TaskStatus.FAILED:
        return f" (no attempt is left: `fedaigc device retry {home(task.client)} {queued.task_id}`)"
    return " (it waits for the next run)" if queued.status is TaskStatus.WAITING else ""


def _alone(task: TaskRecord, ungrouped: Container[str], home: HomeOf | None) -> str:
    """Return why a prompt was drawn alone, as far as grouping decided it."""
    if task.disclosed is None:
        # a home also knows whether the budget of its owner is used up
        where = f" --home {home(task.client)}" if home is not None else ""
        return f"alone (`fedaigc disclose PROMPT{where}` says why)"
    if task.handoff_step is not None:
        return "alone (its device refused the packet)"
    if task.task_id in ungrouped:
        return "alone (no other prompt was near)"
    return "alone"


def savings_line(groups: Sequence[GroupRecord], num_steps: int) -> str:
    """Return how many prompts shared their first steps, and how many steps that saved for those that were drawn."""
    outcomes = Counter(task.outcome for group in groups for task in group.tasks)
    count = sum(outcomes.values())
    taken = sum(group.evaluations for group in groups)
    alone = num_steps * (count - outcomes[Outcome.FAILED])
    failed = f", {outcomes[Outcome.FAILED]} not drawn" if outcomes[Outcome.FAILED] else ""
    saved = (
        f"{alone - taken} of {counted(alone, 'step')} saved"
        if taken <= alone
        else f"{counted(taken - alone, 'step')} more than alone"
    )
    return (
        f"{outcomes[Outcome.SHARED]} of {counted(count, 'prompt')} shared their first steps{failed}; {saved}"
    )


def disclosed_words(task: TaskRecord) -> str:
    """Return what was disclosed of a prompt, in words."""
    if task.disclosed is None:
        return "nothing"
    return in_words(json.dumps(task.disclosed))


def idle_lines(clients: int, home: HomeOf) -> list[str]:
    """Return why no prompt was drawn: none waits, and where the pictures of those that were served are."""
    status: Counter[TaskStatus] = Counter()
    galleries = []
    for client in range(clients):
        tasks = PromptQueue(Home(home(client))).readable()[0]
        status.update(task.status for task in tasks)
        if any(task.status is TaskStatus.FINISHED for task in tasks):
            galleries.append(str(home(client) / "gallery"))
    served, failed = status[TaskStatus.FINISHED], status[TaskStatus.FAILED]
    wait = status[TaskStatus.WAITING]
    waiting = "1 prompt waits" if wait == 1 else f"{wait} prompts wait"
    if galleries:
        waiting += f"; {served} {'was' if served == 1 else 'were'} served: gallery at {', '.join(galleries)}"
    if failed:
        waiting += f"; {failed} failed: `fedaigc device retry` queues one again"
    return [f"{waiting}. `fedaigc device add-prompt HOME TEXT` queues another"]


def _told_group(group: GroupRecord) -> str:
    edge = "the edge server" if group.edge is None else f"edge {group.edge}"
    who = edge if group.executor == "edge" else f"client {group.executor}"
    clients = ", ".join(map(str, sorted({task.client for task in group.tasks})))
    steps = f"{counted(group.evaluations, 'step')}, alone {group.solo_evaluations}"
    prompt = "equal prompts" if group.conditioning == "own" else f"“{group.prompt}”"
    return f"{prompt}, clients {clients}: {counted(group.num_shared_steps, 'shared step')} by {who}; {steps}"


def _told_branches(group: GroupRecord) -> list[str]:
    client = {task.task_id: task.client for task in group.tasks}
    return [
        f"“{branch.prompt}”, clients {', '.join(map(str, sorted({client[task] for task in branch.members})))}: "
        f"steps {branch.start + 1} to {branch.stop}"
        for branch in group.branches
    ]


def _queued(task: TaskRecord, home: HomeOf | None) -> Task | None:
    found = None
    if home is not None:
        # a home that was removed or damaged since has no prompt to show
        with suppress(UnknownTask, UserError, OSError, LookupError, ValueError):
            found = PromptQueue(Home(home(task.client))).get(task.task_id)
    return found
