"""The closed list of what a device says: counts, coarse scores and enums, never a word of a prompt.

Beside these types only signatures (concept ids and enums), updates of the shared-stage adapter (weights) and
packets (latents of a *public* prompt) leave a device.
"""

from dataclasses import dataclass
from enum import StrEnum

from fedaigc.diffusion.handoff.packing import PacketError
from fedaigc.errors import DamagedFile, UserError

# one decimal: a confidence says "drawn" or "not drawn", not which picture it was
SCORE_STEP = 0.1


class Failure(StrEnum):
    """All that a device tells about an error: its message could hold a prompt or a path.

    NOT_FINISHED is all that it tells of a task that was not drawn, whatever went wrong: what fails there may
    depend on the private prompt.
    """

    NOT_FINISHED = "not_finished"
    UNKNOWN_TASK = "unknown_task"
    NO_IMAGES = "no_images"
    PACKET_REFUSED = "packet_refused"
    PLAN_REFUSED = "plan_refused"
    TRAINING_REFUSED = "training_refused"
    BASE_DIFFERS = "base_differs"
    STATE_REFUSED = "state_refused"
    SHARED_STATE_MISSING = "shared_state_missing"
    STORAGE = "storage"
    UNREACHABLE = "unreachable"
    LATE = "late"
    DROPPED_OUT = "dropped_out"
    DIVERGED = "diverged"
    CODE_DIFFERS = "code_differs"
    UNREADABLE = "unreadable"
    INTERNAL = "internal"


class UnknownTask(LookupError):
    """No task of this device has the id."""


class DeviceError(Exception):
    """An error of a device whose kind may be told; its text stays where it is raised."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


def failure_of(error: BaseException) -> Failure:
    """The kind of `error` that may leave the device; the text of the error never does."""
    if isinstance(error, DeviceError):
        return error.failure
    for kind, failure in (
        (UnknownTask, Failure.UNKNOWN_TASK),
        (PacketError, Failure.PACKET_REFUSED),
        (DamagedFile, Failure.STORAGE),
        (UserError, Failure.PLAN_REFUSED),
        (OSError, Failure.STORAGE),
    ):
        if isinstance(error, kind):
            return failure
    return Failure.INTERNAL


def coarse(score: float) -> float:
    """`score` in [0, 1] rounded to the next tenth; ValueError outside."""
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"a score lies in [0, 1], got {score}")
    return round(round(score / SCORE_STEP) * SCORE_STEP, 1)


@dataclass(frozen=True)
class SharedSteps:
    """What the executor of a group hands back: the packet, and the forward passes it took.

    later: packets of later steps, of an edge that waits for a better channel; see `ShareOrder.later`.
    """

    packet: bytes
    denoiser_calls: int
    denoiser_samples: int
    later: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class FinishReport:
    """What a device tells of a finished task.

    shared_stage_steps, personal_stage_steps: denoising steps that it ran on either side of t*.
    denoiser_calls, denoiser_samples: forward passes and the samples in them (guidance doubles the samples).
    object_confidence, place_confidence: how surely the device's own judge sees object and place of the
    private prompt, in tenths; None when the judge does not know them or the device has no judge.
    """

    shared_stage_steps: int
    personal_stage_steps: int
    denoiser_calls: int
    denoiser_samples: int
    object_confidence: float | None = None
    place_confidence: float | None = None

    def __post_init__(self) -> None:
        for name in ("shared_stage_steps", "personal_stage_steps", "denoiser_calls", "denoiser_samples"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is a count, got {value!r}")
        for name in ("object_confidence", "place_confidence"):
            score = getattr(self, name)
            # a float holds 52 bits: one that is no tenth could carry anything
            if score is not None and not (0 <= score <= 1 and score == coarse(score)):
                raise ValueError(f"{name} is a tenth in [0, 1], got {score!r}")
