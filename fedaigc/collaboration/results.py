"""What became of each task and each group: the form in which a session returns it and a run records it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from fedaigc.collaboration.conditioning import FellBack, GroupConditioning, Kind
from fedaigc.collaboration.link import LinkReport
from fedaigc.collaboration.planner import Assignment, planned_evaluations
from fedaigc.collaboration.tree import Branch, executor_steps, lines_of
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.diffusion.schedule.plan import DenoisingPlan


class Outcome(StrEnum):
    """How a task ended."""

    SHARED = "shared"
    ALONE = "alone"
    FAILED = "failed"


class Record(BaseModel):
    """Base of all records of runs."""

    # what a later version adds is no error
    model_config = ConfigDict(frozen=True, extra="ignore")


class TaskRecord(Record):
    """One prompt that was served.

    Attributes:
        task_id: The device's name for the prompt.
        client: The number of the device that holds it.
        disclosed: The signature that the device sent, as JSON values; None for a prompt served alone.
        outcome: How the task ended.
        report: What its device reported; None when it failed.
        failure: Why it failed; None when it did not.
        handoff_step: The denoising step before which its packet was packed; None without a packet.
        link: What its packet took on the simulated link; None without one.
    """

    task_id: str
    client: int
    disclosed: dict[str, str | int] | None
    outcome: Outcome
    report: FinishReport | None
    failure: Failure | None
    handoff_step: int | None
    link: LinkReport | None


class GroupRecord(Record):
    """Tasks that shared their first denoising steps.

    Attributes:
        prompt: The public prompt of the shared steps.
        executor: Who ran them: "edge", or the number of a client.
        num_shared_steps: K; 0 for a task that is alone.
        noise_seed: The seed of the noise that the group started from.
        evaluations: Denoising steps that all machines took together.
        planned_evaluations: As many as the plan has.
        solo_evaluations: As many as the tasks would have taken one by one.
        samples: Samples of the denoiser's forward passes; guidance doubles them.
        packet_bytes: Bytes of the packets from which members finished.
        share_failure: Why the executor failed, where it did; its members were then served alone.
        tasks: The members.
        conditioning: What the shared steps ran on: "public" (`prompt`), "mean", "member", or "own": the prompt
            that all members have, on the executor's device; it was sent to nobody.
        summed: Number of members in the mean; 1 for that of one member.
        fell_back: Why it is "public" where the run asked for something else.
        edge: The edge that grouped the tasks, and ran their shared steps where the executor is "edge", if each edge
            serves its own devices; otherwise None.
        branches: Steps that some of the tasks shared on prompts of their own, after the group's; a planner made them.
    """

    prompt: str
    executor: int | str
    num_shared_steps: int
    noise_seed: int
    evaluations: int
    planned_evaluations: int
    solo_evaluations: int
    samples: int
    packet_bytes: int
    share_failure: Failure | None
    tasks: tuple[TaskRecord, ...]
    conditioning: Kind = "public"
    summed: int = 0
    fell_back: FellBack | None = None
    edge: int | None = None
    branches: tuple[Branch, ...] = ()


def group_record(
    assignment: Assignment,
    steps: SharedSteps | Failure | None,
    records: Mapping[str, TaskRecord],
    sizes: Mapping[str, int],
    plan: DenoisingPlan,
    conditioning: GroupConditioning,
) -> GroupRecord:
    """Return the record of a group, with measured evaluations: those of the executor and of all members."""
    tasks = [records[task_id] for task_id in sorted(assignment.group.members)]
    # a task whose device waited for its channel left later
    leaving = [
        assignment.num_shared_steps if task.handoff_step is None else task.handoff_step for task in tasks
    ]
    reports = [task.report for task in tasks if task.report is not None]
    shared = steps if isinstance(steps, SharedSteps) else None
    if shared is not None and conditioning.kind == "own":
        shared = _counted(shared, reports, assignment.num_shared_steps)
    handoffs = {task.task_id: step for task, step in zip(tasks, leaving, strict=True)}
    common = executor_steps(lines_of(assignment.group.prompt, assignment.branches, handoffs))
    calls = (shared.denoiser_calls if shared else 0) + sum(each.denoiser_calls for each in reports)
    return GroupRecord(
        prompt=assignment.group.prompt,
        executor=assignment.executor,
        num_shared_steps=assignment.num_shared_steps,
        noise_seed=assignment.noise_seed,
        evaluations=round(calls / _calls_per_step(shared, reports, common)),
        planned_evaluations=planned_evaluations(leaving, plan.num_steps, common),
        solo_evaluations=len(tasks) * plan.num_steps,
        samples=(shared.denoiser_samples if shared else 0) + sum(each.denoiser_samples for each in reports),
        packet_bytes=sum(sizes[task.task_id] for task in tasks if task.outcome is Outcome.SHARED),
        share_failure=steps if isinstance(steps, Failure) else None,
        tasks=tuple(tasks),
        conditioning=conditioning.kind,
        summed=conditioning.members,
        fell_back=conditioning.fell_back,
        branches=assignment.branches,
    )


def _calls_per_step(shared: SharedSteps | None, reports: Sequence[FinishReport], leaving: int) -> int:
    """Return how often the denoiser runs in a step: twice where guidance takes a call of its own."""
    steps = sum(each.shared_stage_steps + each.personal_stage_steps for each in reports)
    calls = sum(each.denoiser_calls for each in reports)
    if not steps and shared is not None:
        steps, calls = leaving, shared.denoiser_calls
    return max(1, round(calls / steps)) if steps else 1


def _counted(shared: SharedSteps, reports: Sequence[FinishReport], steps: int) -> SharedSteps:
    """Return the steps of an executor that did not count its calls: as many a step as in the reports."""
    own = sum(each.shared_stage_steps + each.personal_stage_steps for each in reports)
    calls = steps * _calls_per_step(None, reports, steps)
    samples = round(steps * sum(each.denoiser_samples for each in reports) / own) if own else calls
    return replace(shared, denoiser_calls=calls, denoiser_samples=samples)
