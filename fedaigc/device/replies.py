"""Two of a device's replies, a report and the work of an executor, and the kinds of its failures.

docs/threats.md lists all that a device sends ("What a device sends").
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from fedaigc.errors import DamagedFile, Error, NotFinite, PacketError, UserError

# one decimal: a confidence shows whether a concept was drawn, not which image it was
SCORE_STEP = 0.1
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Failure(StrEnum):
    """The kinds of errors that a device reports; docs/how-to/refusals.md has the cause and the remedy of each.

    The message stays on the device, since it could hold a prompt or a path. NOT_FINISHED is all that a device
    reports about a task that was not drawn, whatever the cause: a failure at that point may depend on the
    private prompt. In a simulation, where one user owns all devices, NOT_FINITE says why such a task was not drawn:
    the model computed values that are not finite. NOT_SUMMED is all that it reports about a conditioning that it
    did not give to a sum, and NOT_COMPARED about a task that takes no part in an equality test.
    """

    NOT_FINISHED = "not_finished"
    UNKNOWN_TASK = "unknown_task"
    NO_IMAGES = "no_images"
    PACKET_REFUSED = "packet_refused"
    ORDER_REFUSED = "order_refused"
    CONFIGURATION_REFUSED = "configuration_refused"
    STRATEGY_REFUSED = "strategy_refused"
    PLAN_REFUSED = "plan_refused"
    TRAINING_REFUSED = "training_refused"
    BASE_DIFFERS = "base_differs"
    STATE_REFUSED = "state_refused"
    SHARED_STATE_MISSING = "shared_state_missing"
    STORAGE = "storage"
    DISK_FULL = "disk_full"
    OUT_OF_MEMORY = "out_of_memory"
    PACKAGE_MISSING = "package_missing"
    UNREACHABLE = "unreachable"
    LATE = "late"
    DROPPED_OUT = "dropped_out"
    DIVERGED = "diverged"
    NOT_FINITE = "not_finite"
    NOT_SUMMED = "not_summed"
    NOT_COMPARED = "not_compared"
    CODE_DIFFERS = "code_differs"
    UNREADABLE = "unreadable"
    INTERNAL = "internal"


class UnknownTask(Error, LookupError):
    """The device has no task with this id."""


class DeviceError(Error):
    """An error whose kind a device may report; its message is not sent."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


def failure_of(error: BaseException) -> Failure:
    """Return the kind of `error` that may leave the device; the message never does."""
    if isinstance(error, DeviceError):
        return error.failure
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return Failure.DISK_FULL
    for kind, failure in (
        (UnknownTask, Failure.UNKNOWN_TASK),
        (PacketError, Failure.PACKET_REFUSED),
        (DamagedFile, Failure.STORAGE),
        (NotFinite, Failure.NOT_FINITE),
        # of this project's extras, and of libraries that need a package for some of their parts
        (ImportError, Failure.PACKAGE_MISSING),
        (UserError, Failure.ORDER_REFUSED),
        (MemoryError, Failure.OUT_OF_MEMORY),
        (OSError, Failure.STORAGE),
    ):
        if isinstance(error, kind):
            return failure
    # torch's error of a GPU, of which the CPU has no counterpart; this module does not import torch
    return Failure.OUT_OF_MEMORY if type(error).__name__ == "OutOfMemoryError" else Failure.INTERNAL


@contextmanager
def refusing(failure: Failure) -> Iterator[None]:
    """Report the refusals of a part of an order as `failure`; damaged files and missing packages keep their kinds.

    Raises:
        DeviceError: Of this kind, for a `UserError` in the context.
    """
    try:
        yield
    except (DamagedFile, NotFinite, PacketError, ImportError):
        raise
    except UserError as error:
        raise DeviceError(failure, str(error)) from error


@contextmanager
def reading_an_order() -> Iterator[None]:
    """Report content that is not what a server of this version sends as `Failure.ORDER_REFUSED`.

    Raises:
        DeviceError: For a key that is missing, and for values of other types or beyond their bounds.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(Failure.ORDER_REFUSED, f"the order cannot be read: {error}") from error


def coarse(score: float) -> float:
    """Round a score in [0, 1] to the nearest tenth.

    Raises:
        ValueError: If the score lies outside [0, 1].
    """
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"score {score}: expected 0 to 1")
    return round(round(score / SCORE_STEP) * SCORE_STEP, 1)


@dataclass(frozen=True)
class SharedSteps:
    """The work of a group's executor.

    Attributes:
        packet: Packet of the shared steps.
        denoiser_calls: Number of forward passes.
        denoiser_samples: Number of samples in these passes.
        later: Packets of later steps, from an edge server that waits for a better channel; see
            `ShareOrder.later`.
    """

    packet: bytes
    denoiser_calls: int
    denoiser_samples: int
    later: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class FinishReport:
    """The report of a device about a finished task.

    Attributes:
        shared_stage_steps, personal_stage_steps: Denoising steps that the device ran on either side of t*.
        denoiser_calls: Number of forward passes.
        denoiser_samples: Number of samples in these passes; guidance doubles them.
        object_confidence, place_confidence: Confidence of the device's own judge that the image shows the
            object and the place of the private prompt, in tenths. None if the judge does not know them or the
            device has no judge.
        clip_score: CLIP score of the image and the private prompt, from 0 to 100 in tenths. None if CLIP is not the
            run's scorer, or does not read a prompt of this length. Devices on separate machines send no scores.

    Raises:
        ValueError: If a count is not a non-negative integer, or a score is not a tenth.
    """

    shared_stage_steps: int
    personal_stage_steps: int
    denoiser_calls: int
    denoiser_samples: int
    object_confidence: float | None = None
    place_confidence: float | None = None
    clip_score: float | None = None

    def __post_init__(self) -> None:
        for name in ("shared_stage_steps", "personal_stage_steps", "denoiser_calls", "denoiser_samples"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}: expected a count")
        for name in ("object_confidence", "place_confidence"):
            score = getattr(self, name)
            # a float has 52 bits of fraction: without this check it could carry other information
            if score is not None and not (0 <= score <= 1 and score == coarse(score)):
                raise ValueError(f"{name} is {score!r}: expected 0 to 1 in steps of 0.1")
        score = self.clip_score
        if score is not None and not (0 <= score <= 100 and score == round(score, 1)):
            raise ValueError(f"clip_score is {score!r}: expected 0 to 100 in steps of 0.1")
