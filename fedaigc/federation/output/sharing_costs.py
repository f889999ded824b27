"""Where the denoising steps and joules of a generation went, by machine.

Steps are those that machines reported. Joules are those of the built-in profiles, of Stable Diffusion v1-4 at 512
pixels: on another model they compare ways to share, and do not measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedaigc.collaboration.results import GroupRecord
from fedaigc.collaboration.tree import executor_steps, lines_of
from fedaigc.device.shared_steps import Line
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE


@dataclass(frozen=True)
class Part:
    """Steps and joules of one kind.

    Attributes:
        name: What they were for.
        steps: Denoising steps.
        joules: Joules, with those of text encoding and decoding.
    """

    name: str
    steps: int
    joules: float


def lines_of_group(group: GroupRecord) -> list[Line]:
    """Return the lines that the executor of a group ran, its own first; none if it shared nothing."""
    if not group.num_shared_steps or group.share_failure is not None:
        return []
    handoffs = {
        task.task_id: group.num_shared_steps if task.handoff_step is None else task.handoff_step
        for task in group.tasks
    }
    return lines_of(group.prompt, group.branches, handoffs)


def spent(groups: Sequence[GroupRecord]) -> list[Part]:
    """Return where steps and joules went: shared steps by the edge server and by helpers, own steps, and packets."""
    shared = {"edge": 0, "helpers": 0}
    encoded = {"edge": 0, "helpers": 0}
    own, drawn, radio = 0, 0, 0.0
    for group in groups:
        lines = lines_of_group(group)
        who = "edge" if group.executor == "edge" else "helpers"
        shared[who] += executor_steps(lines)
        encoded[who] += len(lines)
        for task in group.tasks:
            if task.report is not None:
                drawn += 1
                own += task.report.shared_stage_steps + task.report.personal_stage_steps
            if task.link is not None:
                # a multicast reaches several members with one transmission, which each of them reports whole
                radio += task.link.send_j / task.link.members + task.link.receive_j
    found = []
    for name, who, profile in (
        ("shared steps, edge server", "edge", EDGE_SERVER),
        ("shared steps, helpers", "helpers", PHONE),
    ):
        if shared[who]:
            joules = shared[who] * profile.step_j + encoded[who] * profile.text_j
            found.append(Part(name, shared[who], joules))
    found.append(
        Part("own steps, devices", own, own * PHONE.step_j + drawn * (PHONE.text_j + PHONE.decode_j))
    )
    if radio:
        found.append(Part("packets", 0, radio))
    return found


def alone(groups: Sequence[GroupRecord], num_steps: int) -> Part:
    """Return what the pictures that were drawn would have taken without sharing."""
    drawn = sum(task.report is not None for group in groups for task in group.tasks)
    return Part("each alone", drawn * num_steps, drawn * PHONE.image_j(num_steps))


def cost_lines(groups: Sequence[GroupRecord], num_steps: int) -> list[str]:
    """Return where steps and joules went, for a terminal."""
    parts = [*spent(groups), alone(groups, num_steps)]
    lines = [f"{part.name}: {part.steps} steps, {part.joules:,.0f} J" for part in parts]
    return [*lines, "(joules by the built-in profiles: Stable Diffusion v1-4 on an edge server and phones)"]
