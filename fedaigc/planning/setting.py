"""What a plan is made for: the damage that is accepted, the machines, the link, and the cost to minimise."""

from dataclasses import dataclass, field
from typing import Final, Literal

from fedaigc.errors import UserError
from fedaigc.planning.curve import DamageCurve

EDGE: Final = "edge"


@dataclass(frozen=True)
class Machine:
    """A machine that runs denoising steps.

    Attributes:
        name: Its name.
        step_s: t(1), seconds of a step of one sample.
        step_j: Joules of a step of one sample.
        batch: U, the largest batch.
        batch_s: t(U), seconds of a step of a full batch. Default: U times `step_s`, so that batches gain nothing.
        image_s, image_j: Seconds and joules of text encoding and decoding, once an image.

    Raises:
        UserError: If a figure is out of range.
    """

    name: str
    step_s: float
    step_j: float
    batch: int = 1
    batch_s: float | None = None
    image_s: float = 0.0
    image_j: float = 0.0

    def __post_init__(self) -> None:
        figures = (self.step_s, self.step_j, self.image_s, self.image_j, self.full_s)
        if self.batch < 1 or not all(each >= 0 for each in figures):
            raise UserError(f"{self.name}: expected figures of at least 0 and a batch of at least 1")
        if self.full_s < self.step_s or (self.batch == 1 and self.full_s != self.step_s):
            raise UserError(
                f"{self.name}: a batch of {self.batch} takes {self.full_s} s, one sample {self.step_s} s"
            )

    @property
    def full_s(self) -> float:
        """t(U)."""
        return self.batch * self.step_s if self.batch_s is None else self.batch_s

    def seconds(self, samples: int) -> float:
        """Return the seconds of one step of `samples` samples, in batches of at most U.

        A batch of n takes t(1) + (n - 1) (t(U) - t(1)) / (U - 1).
        """
        full, rest = divmod(samples, self.batch)
        slope = (self.full_s - self.step_s) / max(1, self.batch - 1)
        return full * self.full_s + (self.step_s + (rest - 1) * slope if rest else 0.0)


@dataclass(frozen=True)
class Link:
    """What one packet costs.

    Attributes:
        bits: Bits of a packet on air.
        seconds: Seconds until it has arrived.
        joules: Joules of sender and receiver.
    """

    bits: int = 0
    seconds: float = 0.0
    joules: float = 0.0

    def __post_init__(self) -> None:
        if not (self.bits >= 0 and self.seconds >= 0 and self.joules >= 0):
            raise UserError("a packet costs at least 0 bits, seconds and joules")


@dataclass(frozen=True)
class Machines:
    """The machines and the link.

    Attributes:
        edge: The edge server.
        devices: The device classes.
        link: The link over which packets go.
        executor: Who runs shared steps: the edge server, or a member of each node.
    """

    edge: Machine = field(default_factory=lambda: Machine("edge", 1.0, 1.0))
    devices: tuple[Machine, ...] = field(default_factory=lambda: (Machine("device", 1.0, 1.0),))
    link: Link = field(default_factory=Link)
    executor: Literal["edge", "member"] = "edge"

    def __post_init__(self) -> None:
        if not self.devices:
            raise UserError("no device class: expected at least one")


@dataclass(frozen=True)
class Weights:
    """The cost to minimise.

    Attributes:
        shared_step: Cost of a step that an executor runs for a node.
        own_step: Cost of a step that a device runs for its own task, for each device class.
        packet: Cost of a packet.
    """

    shared_step: float
    own_step: tuple[float, ...]
    packet: float = 0.0

    def __post_init__(self) -> None:
        if not all(each >= 0 for each in (self.shared_step, self.packet, *self.own_step)):
            raise UserError("the weights of a cost must be at least 0")

    @classmethod
    def evaluations(cls, classes: int = 1) -> "Weights":
        """Return weights that count denoiser evaluations, whoever runs them."""
        return cls(1.0, (1.0,) * classes)

    @classmethod
    def joules(cls, machines: Machines) -> "Weights":
        """Return weights that count the joules of all machines. For helpers: of a device of mean class."""
        own = tuple(device.step_j for device in machines.devices)
        shared = machines.edge.step_j if machines.executor == EDGE else sum(own) / len(own)
        return cls(shared, own, machines.link.joules)


@dataclass(frozen=True, eq=False)
class Setting:
    """All that a planner needs besides the tasks.

    Attributes:
        curve: The damage curve.
        tolerance: The largest predicted damage of a member.
        machines: Machines and link.
        weights: The cost to minimise. Default: denoiser evaluations.

    Raises:
        UserError: If the tolerance is negative, or the weights are for another number of device classes.
    """

    curve: DamageCurve
    tolerance: float
    machines: Machines = field(default_factory=Machines)
    weights: Weights = field(default_factory=Weights.evaluations)

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise UserError(f"the tolerance is {self.tolerance}: expected at least 0")
        if len(self.weights.own_step) != len(self.machines.devices):
            raise UserError(
                f"weights for {len(self.weights.own_step)} device classes, machines have "
                f"{len(self.machines.devices)}: give one weight each class"
            )
