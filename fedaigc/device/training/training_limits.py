"""Limits of training: what one order may ask of a device, and what all orders together may.

Work is counted where it is done: a strategy requests steps and gradient batches of its own in addition to
`local_steps`, so `SharedStageWork` takes them from a `RoundBudget` before it computes them. The count is in
the home before the computation, so a device that is killed or restarted has counted it.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, NonNegativeInt, with_config
from torch import Tensor

from fedaigc.counting import counted
from fedaigc.device.home.home import Home
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.strategy.client_rule import Received

# latest orders that a server may repeat without a new count, if it or the device died in the round
_REPEATABLE = 16
_HOURS_A_DAY = 24
# values of the default configuration: how far a step moves the weights, and how much it memorizes, grows
# with the learning rate and not with the batch
PASS_LEARNING_RATE = 1e-3
PASS_BATCH_SIZE = 8


@with_config(ConfigDict(extra="forbid"))
@dataclass
class _Counts:
    """What a home counts.

    Attributes:
        rounds: All rounds so far.
        pictures: Private images that servers trained on, with repetition.
        hours: Rounds by hour since 1970.
        orders: Images that each of the latest orders took, by its digest.
        latest: The digests of these orders, oldest first.
    """

    rounds: NonNegativeInt
    pictures: NonNegativeInt
    hours: dict[Annotated[str, Field(pattern="^[0-9]+$")], NonNegativeInt]
    orders: dict[str, NonNegativeInt]
    latest: list[str]


@dataclass(frozen=True)
class TrainingOrder:
    """Everything that determines what a training round computes, except the home and the strategy's code.

    Attributes:
        run: Name of the run.
        received: What the client received.
        strategy, options: Strategy and its options, as in the configuration.
        training: Training settings of the federation.
        local_steps: Local steps of this client.
        personal_rank: Rank of a new personal adapter.
        height, width: Image size in pixels.
        validation_fraction: Share of the images that are kept out of training.
    """

    run: str
    received: Received
    strategy: str
    options: Mapping[str, bool | int | float | str]
    training: TrainingSettings
    local_steps: int
    personal_rank: int
    height: int
    width: int
    validation_fraction: float = 0.0

    def digest(self, memory: Mapping[str, Tensor]) -> str:
        """Return a digest that only a repeated order shares: the same weights, run, round and settings.

        Args:
            memory: Memory of the strategy from which the round starts. A server determines it by the order of
                rounds, and other steps are computed from another memory.
        """
        received = self.received
        told = [self.run, received.round, received.shared.hash(), self.strategy, dict(self.options)]
        told += [asdict(self.training), self.local_steps, self.personal_rank, self.height, self.width]
        told += [_hash(received.extra), _hash(memory)]
        told += [self.validation_fraction] if self.validation_fraction else []
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _hash(tensors: Mapping[str, Tensor]) -> str:
    return SharedState("", {}, 1, 1.0, {f"extra.{name}": x for name, x in tensors.items()}).hash()


def check_order(order: TrainingOrder, limits: OwnerLimits, *, full_weights: bool = False) -> None:
    """Check an order against the owner's limits; see `OwnerLimits`.

    Args:
        order: Order to check.
        limits: Limits of the owner.
        full_weights: Whether the strategy trains dense weights.

    Raises:
        DeviceError: If the order is beyond a limit.
    """
    shared, training = order.received.shared, order.training
    rows = [down.shape[0] for down, _ in shared.lora.values() if down.dim()]
    asked: dict[str, tuple[float, float]] = {
        "steps of the shared stage": (order.local_steps, limits.max_local_steps),
        "steps of the personal stage": (training.personal_steps, limits.max_personal_steps),
        "pictures per batch": (training.batch_size, limits.max_batch_size),
        "as rank": (max(shared.rank, order.personal_rank, *rows), limits.max_rank),
        "as learning rate": (training.learning_rate, limits.max_learning_rate),
        "as condition dropout": (training.condition_dropout, limits.max_condition_dropout),
        "pixels a side": (max(order.height, order.width), limits.max_image_side),
    }
    for what, (value, limit) in asked.items():
        # written so that NaN is refused as well
        if not value <= limit:
            raise _refused(f"the server requests {value} {what}, the owner permits at most {limit}")
    if order.validation_fraction and not limits.validation_loss:
        raise _refused(
            "the server requests the loss on images that are kept out of training, which the owner does not permit"
        )
    if full_weights and not limits.full_weights:
        raise _refused("the server requests training of full weights, which the owner does not permit")


def step_gain(start: SharedState) -> float:
    """Return how much further a step moves weights from these factors than from fresh ones, at least 1.

    A step that moves the entries of B by eta moves a weight by eta s |a| for each row a of A, and a step on A
    likewise by the columns of B. Fresh rows have at most norm 1, and s is 1 unless alpha differs from the
    rank. A server that sends larger factors would otherwise get the steps of a larger learning rate than it
    asks for.
    """
    lengths = [1.0]
    for down, up in start.lora.values():
        lengths.append(float(torch.linalg.vector_norm(down.double().flatten(1), dim=1).max()))
        lengths.append(float(torch.linalg.vector_norm(up.double().flatten(1), dim=0).max()))
    return max(1.0, abs(start.adapter.scale) * max(lengths)) if start.lora else 1.0


class RoundBudget:
    """What one order may still compute. Call `begin` first, then `take` before each piece of work."""

    def __init__(self, home: Home, limits: OwnerLimits, order: TrainingOrder) -> None:
        self._home, self._limits, self._order = home, limits, order
        self._path = home.root / "training.json"
        self._steps_left = limits.max_local_steps
        self._taken = 0
        self._digest = ""

    @property
    def rounds_before(self) -> int:
        """Number of rounds that this home has counted, over all orders and runs."""
        return self._read().rounds

    def begin(self, num_images: int, memory: Mapping[str, Tensor]) -> None:
        """Count the round, unless it repeats one.

        Args:
            num_images: n, the number of private images.
            memory: See `TrainingOrder.digest`.

        Raises:
            DeviceError: If the rounds of a day, or all rounds, are used up.
            DamagedFile: If the count cannot be read: it must not start anew.
        """
        self._num_images, self._digest = num_images, self._order.digest(memory)
        counts = self._read()
        if self._digest in counts.orders:
            return
        if counts.rounds >= self._limits.max_rounds:
            raise _refused(f"the owner permits no more than {counted(counts.rounds, 'round')}")
        hour = int(_now_s() // 3600)
        # hours later than now still count, in case the clock was set back
        recent = {at: n for at, n in counts.hours.items() if int(at) > hour - _HOURS_A_DAY}
        if sum(recent.values()) >= self._limits.max_rounds_a_day:
            raise _refused(
                f"the owner permits no more than {counted(sum(recent.values()), 'round')} within 24 hours"
            )
        counts.hours = recent | {str(hour): recent.get(str(hour), 0) + 1}
        counts.rounds += 1
        counts.orders[self._digest] = 0
        counts.latest = [*counts.latest, self._digest][-_REPEATABLE:]
        counts.orders = {digest: counts.orders[digest] for digest in counts.latest}
        self._home.write_json(self._path, asdict(counts))

    def take(self, steps: int, gain: float = 1.0) -> None:
        """Count steps of the shared stage, or gradient batches, before they are computed.

        Args:
            steps: Number of steps or batches.
            gain: See `step_gain`.

        Raises:
            DeviceError: If they exceed what is left of the order's steps, or of the passes over the private
                images.
        """
        if steps > self._steps_left:
            asked = self._limits.max_local_steps - self._steps_left + steps
            raise _refused(
                f"the strategy orders {counted(asked, 'step')} and gradient batches of the shared stage, "
                f"the owner permits at most {self._limits.max_local_steps}"
            )
        self._steps_left -= steps
        training = self._order.training
        weight = max(1.0, training.learning_rate / PASS_LEARNING_RATE * gain)
        self._taken += math.ceil(steps * max(training.batch_size, PASS_BATCH_SIZE) * weight)
        counts = self._read()
        before = counts.orders.get(self._digest, 0)
        if self._taken <= before:
            return  # a repeated order trains on the same images again
        pictures = counts.pictures + self._taken - before
        if pictures > self._limits.max_passes * self._num_images:
            raise _refused(
                f"this would be {pictures / self._num_images:.1f} passes over the private pictures in total, "
                f"the owner permits at most {self._limits.max_passes}"
            )
        counts.pictures, counts.orders[self._digest] = pictures, self._taken
        self._home.write_json(self._path, asdict(counts))

    def _read(self) -> _Counts:
        if not self._path.exists():
            return _Counts(0, 0, {}, {}, [])
        return self._home.read(self._path, _Counts)


def _now_s() -> float:
    return time.time()


def _refused(text: str) -> DeviceError:
    return DeviceError(Failure.TRAINING_REFUSED, text)
