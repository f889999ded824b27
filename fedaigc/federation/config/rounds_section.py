"""The section `rounds` of a configuration."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedaigc.federation.config.model_config import Section
from fedaigc.federation.wire.codec import WireFormat
from fedaigc.validation import NO_LIMIT


class EarlyStopping(Section):
    """When the rounds end before `rounds.count`. The last state is kept, and the record has the reason.

    Attributes:
        metric: The loss, as the unweighted mean over the clients of a round. "validation_loss" is that of the
            state with which a round began, on images that no device trains on. "shared_loss" is the mean loss
            of the local training.
        patience: Number of rounds in a row without an improvement after which the run stops.
        min_delta: An improvement is a fall by more than this below the lowest loss so far.
    """

    metric: Literal["validation_loss", "shared_loss"] = "validation_loss"
    patience: Annotated[int, Field(ge=1)] = 3
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class RoundsSection(Section):
    """Federated training.

    Attributes:
        count: Number of rounds; 0: no training.
        strategy: A name, or the path of a Python file relative to the folder of the configuration; see
            `strategies/README.md`.
        options: Options of the strategy.
        clients: Number of clients sampled per round; None: all.
        deadline_s: Seconds after which the round continues without the updates of clients that have not
            answered; None: wait, on separate machines an hour; `inf`: wait.
        upload_format: Number format of the updates.
        download_format: Number format of the state that clients receive.
        dropout_rate: Share of sampled clients that fail after they were sent the state, drawn from the seed.
        tensorboard: Also write the figures of each round to `tensorboard/` in the output, for TensorBoard.
        max_norm_ratio: An update that moves the state by more than this multiple of the running median of
            updates is refused, and so is an aggregate that moves it by more than this multiple of the largest
            recent one. None, `inf` in TOML: no limit.
        max_weight_ratio: A client counts for at most this multiple of the median number of images of all
            devices. None, `inf` in TOML: no limit.
        attackers: How many of a round's clients a robust strategy withstands.
        validation_fraction: Share of its own images that each device keeps out of training. In each round it
            reports the loss of the received shared state on them, `validation_loss`: a number about private
            images that leaves the device. The owner of a device on a separate machine has to permit it.
        early_stopping: End the rounds when a loss no longer falls; None: run all `count` rounds.
    """

    count: Annotated[int, Field(ge=0)] = 3
    strategy: str = "fedavg"
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    clients: Annotated[int, Field(ge=1)] | None = None
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=True)] | None = None
    upload_format: WireFormat = "float32"
    download_format: WireFormat = "float32"
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tensorboard: bool = False
    max_norm_ratio: Annotated[Annotated[float, Field(ge=1)] | None, NO_LIMIT] = 5.0
    max_weight_ratio: Annotated[Annotated[float, Field(ge=1)] | None, NO_LIMIT] = 10.0
    attackers: Annotated[int, Field(ge=0)] = 0
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _measured(self) -> "RoundsSection":
        stopping = self.early_stopping
        if stopping is not None and stopping.metric == "validation_loss" and not self.validation_fraction:
            raise ValueError(
                'rounds.early_stopping.metric is "validation_loss", which no device reports: set '
                'rounds.validation_fraction, such as 0.1, or choose the metric "shared_loss"'
            )
        return self
