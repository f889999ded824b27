"""What became of each task and each group: the form in which a session returns it and a run records it."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from fedaigc.collaboration.conditioning import FellBack, Kind
from fedaigc.collaboration.link import LinkReport
from fedaigc.collaboration.tree import Branch
from fedaigc.device.replies import Failure, FinishReport


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
