"""What sums and equality tests have in common: a task that waits, and the price of what is said of it."""

from typing import Literal

from fedaigc.device.device import Device
from fedaigc.device.home.budget import Price, budget_of
from fedaigc.device.home.prompts import Task, TaskStatus
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure, UnknownTask


def waiting_task(device: Device, task_id: str) -> Task:
    """Return a task that waits; UnknownTask if there is none of this id."""
    task = device.prompts.get(task_id)
    if task.status is not TaskStatus.WAITING:
        raise UnknownTask("this task is not waiting")
    return task


def count_disclosure(
    device: Device,
    task: Task,
    price: Price,
    text: str,
    *,
    kind: Literal["sum", "equality"],
    number: str,
    limits: OwnerLimits | None,
    refusal: Failure,
) -> None:
    """Count what is about to be said of a task in the ledger of its device.

    Args:
        device: The device.
        task: The task.
        price: What it tells.
        text: What is said, in words for the owner.
        kind: Kind of the entry of the ledger.
        number: Number of the sum or the test.
        limits: Limits of the owner; None in a simulation.
        refusal: What the device reports if the budget does not allow it.

    Raises:
        DeviceError: If the owner's budget does not allow it.
    """
    queue = device.prompts
    said = queue.ledger.disclose(
        kind,
        task.task_id,
        task.prompt,
        price,
        budget_of(queue.home, limits),
        lambda: text,
        form=f"{kind} {number}",
    )
    if said is None:
        raise DeviceError(refusal, "the owner's budget of disclosures does not allow it")
