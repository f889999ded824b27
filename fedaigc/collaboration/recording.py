"""What a session records of a group: measured evaluations, those of its executor and of all members."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedaigc.collaboration.conditioning import GroupConditioning
from fedaigc.collaboration.planner import Assignment, planned_evaluations
from fedaigc.collaboration.results import GroupRecord, Outcome, TaskRecord
from fedaigc.collaboration.tree import executor_steps, lines_of
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.diffusion.schedule.plan import DenoisingPlan


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
