"""The records in `record.json`: a run with its rounds, generations, groups and tasks.

Only this module reads and writes records. `to_pandas` returns the rounds and the tasks of a run as data frames.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field, RootModel, ValidationError

from fedaigc.collaboration.results import GroupRecord, Record, TaskRecord
from fedaigc.device.replies import Failure
from fedaigc.errors import DamagedFile, UserError
from fedaigc.storage.atomic_file import read_json, write_json
from fedaigc.strategy.accountant import Release, Spent

if TYPE_CHECKING:
    from pandas import DataFrame

RECORD = "record.json"
# one line for each service of continuous generation
GENERATIONS = "generations.jsonl"
Row = TypeVar("Row")


class _Rows(RootModel[tuple[Row, ...]], Generic[Row]):
    """Records of one kind, as a sequence."""

    model_config = ConfigDict(frozen=True)

    def __iter__(self) -> Iterator[Row]:  # type: ignore[override]
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    def __getitem__(self, index: int) -> Row:
        return self.root[index]


class Tasks(_Rows[TaskRecord]):
    """Tasks in the order in which they were served."""

    def to_pandas(self) -> "DataFrame":
        """Return one row per task. The columns of reports and links start with `report_` and `link_`."""
        from pandas import json_normalize

        rows = [task.model_dump(mode="json") for task in self]
        return json_normalize([{k: v for k, v in row.items() if v is not None} for row in rows], sep="_")


class GenerationRecord(Record):
    """One service of all prompts that waited.

    Attributes:
        policy: The most permissive policy that the server asked for.
        plan: The fingerprint of the denoising plan.
        num_steps: Number of steps of the plan.
        boundary_step: The first step on the personal side of t*.
        refused: Clients that failed to name their tasks, with the kind of failure.
        unreadable: Number of prompts that a device cannot read, by client. Clients without any are omitted.
        seconds: Duration of each part of the service.
        groups: All groups, including those with a single task.
        atlas: Hash of the atlas by whose nodes tasks were grouped. None: by concepts.
        device_bytes: Bytes that devices without an edge send each other, by kind ("messages", "packets"), as
            `collaboration.between_devices` counts them; empty with an edge.
    """

    policy: str
    plan: str
    num_steps: int
    boundary_step: int
    refused: dict[int, Failure]
    unreadable: dict[int, int]
    seconds: dict[str, float]
    groups: tuple[GroupRecord, ...]
    atlas: str | None = None
    device_bytes: dict[str, int] = Field(default_factory=dict)

    @property
    def tasks(self) -> Tasks:
        """The tasks of all groups."""
        return Tasks(tuple(task for group in self.groups for task in group.tasks))


class ServiceRecord(GenerationRecord):
    """One service of continuous generation.

    Attributes:
        after_round: The round after which it took place, or 0 before the first.
        time: When it ended, in seconds since 1970.
    """

    after_round: int
    time: float

    @classmethod
    def of(cls, generation: GenerationRecord, after_round: int) -> "ServiceRecord":
        """Return the record of a service that has just ended."""
        values = {name: getattr(generation, name) for name in GenerationRecord.model_fields}
        return cls(**values, after_round=after_round, time=round(time.time(), 3))

    def append(self, output: Path) -> None:
        """Append the record as a line to the run's file of services."""
        with (output / GENERATIONS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.model_dump(mode="json"), sort_keys=True) + "\n")


def read_services(output: Path) -> tuple[ServiceRecord, ...]:
    """Return all services of a run so far, or none if there is no file.

    Raises:
        DamagedFile: If a line was not written by `ServiceRecord.append`.
    """
    path = output / GENERATIONS
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(ServiceRecord.model_validate_json(line) for line in lines)
    except ValidationError:
        raise DamagedFile(f"{path} is damaged: remove it") from None


class RoundNoise(Record):
    """A mean with noise, and what the run has spent by then: see `strategy.accountant`."""

    clients: int
    clipping_norm: float
    noise_std: float
    mu: float | None
    delta: float
    no_epsilon: str = ""
    epsilon: float | None = None
    epsilon_replace_one: float | None = None

    @property
    def release(self) -> Release:
        """Return the mean without the privacy loss."""
        values = self.model_dump(exclude={"epsilon", "epsilon_replace_one"})
        return Release(**values)

    @classmethod
    def of(cls, release: Release, spent: Spent | None = None) -> "RoundNoise":
        """Return the record of a mean. `spent` is the privacy loss of the run, including this mean."""
        so_far: dict[str, Any] = {}
        if spent is not None:
            so_far = {"epsilon": spent.epsilon, "epsilon_replace_one": spent.epsilon_replace_one}
        return cls(**asdict(release), **so_far)


class RoundRecord(Record):
    """What happened in a training round.

    Attributes:
        round: The number of the round, from 1.
        sampled: The clients that were asked to train.
        refused: Why an update was left out, by client.
        num_examples: The number of training images that each client reported.
        metrics: Losses, by client and name: means of the training in each stage and, with
            `rounds.validation_fraction`, `validation_loss` of the state with which the round began. Separate
            machines tell them to two decimals.
        sent_bytes: Bytes of this round, by direction and kind; with edges, those between devices and edges.
        backhaul_bytes: With edges, the bytes of this round between edges and server; empty without edges.
        seconds: Duration of the round.
        shared_hash: The version of the shared state after the round.
        dp: The noise of the mean, if the rule adds noise.
        capped: The weight of clients that were weighted below their reported number of images.
        rejected: Why the aggregate was rejected. None if it was accepted.
        fell_back_to: The round whose state was restored because devices diverged. None otherwise.
        tracebacks: In a simulation, the traceback of clients that failed by an error.
    """

    round: int
    sampled: tuple[int, ...]
    refused: dict[int, str]
    num_examples: dict[int, int]
    metrics: dict[int, dict[str, float]]
    sent_bytes: dict[str, dict[str, int]]
    seconds: float
    shared_hash: str
    dp: RoundNoise | None = None
    capped: dict[int, int] = Field(default_factory=dict)
    rejected: str | None = None
    fell_back_to: int | None = None
    tracebacks: dict[int, str] = Field(default_factory=dict)
    backhaul_bytes: dict[str, dict[str, int]] = Field(default_factory=dict)

    def mean_metrics(self, *, by_examples: bool = False) -> dict[str, float]:
        """Return the mean of each metric over the clients that reported it.

        Args:
            by_examples: Whether clients count by their training images; otherwise all count alike.
        """
        names = sorted({name for metrics in self.metrics.values() for name in metrics})
        means = {}
        for name in names:
            values = {client: each[name] for client, each in self.metrics.items() if name in each}
            weights = {client: self.num_examples[client] if by_examples else 1 for client in values}
            total = sum(values[client] * weight for client, weight in weights.items())
            means[name] = total / sum(weights.values())
        return means


class Rounds(_Rows[RoundRecord]):
    """The rounds of a run."""

    def to_pandas(self) -> "DataFrame":
        """Return one row per round: clients, refusals, mean losses, bytes by direction, seconds, hash of the state.

        Losses are means in which clients count alike; `validation_loss_by_examples` weighs them by their images.
        """
        from pandas import DataFrame

        rows = [
            {
                "round": done.round,
                "clients": len(done.num_examples),
                "refused": len(done.refused),
                **done.mean_metrics(),
                **{
                    f"{name}_by_examples": value
                    for name, value in done.mean_metrics(by_examples=True).items()
                    if name == "validation_loss"
                },
                **{f"bytes_{name}": sum(kinds.values()) for name, kinds in done.sent_bytes.items()},
                **{
                    f"backhaul_bytes_{name}": sum(kinds.values())
                    for name, kinds in done.backhaul_bytes.items()
                },
                "seconds": done.seconds,
                "shared_hash": done.shared_hash,
            }
            for done in self
        ]
        return DataFrame(rows)

    def updates_to_pandas(self) -> "DataFrame":
        """Return one row per round and client: examples, weight and losses."""
        from pandas import DataFrame

        rows = [
            {
                "round": done.round,
                "client": client,
                "num_examples": count,
                "weight": done.capped.get(client, count),
                **done.metrics.get(client, {}),
            }
            for done in self
            for client, count in done.num_examples.items()
        ]
        return DataFrame(rows)


class RefusalRecord(Record):
    """A node that takes no part; client: the number that it claimed, where it is believed."""

    client: int | None
    reason: str


class FellBack(Record):
    """A resumed run that could not use its newest checkpoint."""

    to_round: int
    reason: str


class RunRecord(Record):
    """A run.

    Attributes:
        status: The current or final status.
        config: The configuration as JSON values.
        versions: Versions of Python and of the packages that the figures depend on.
        rounds: The training rounds.
        base: The fingerprint of the base model.
        clients: The participating clients.
        absent: Clients with a registered device that never connected.
        refused: The excluded nodes.
        client_versions: Software versions of each client.
        version_warning: A sentence on versions that differ from the server's. None if all agree.
        fell_back: Set if a resumed run could not use its newest checkpoint.
        shared_hash: The version of the final shared state.
        generation: The generation after the last round.
        earlier_generations: Generations of earlier processes of this run.
        sent_bytes: Bytes of the whole run, by direction and kind; with edges, those between devices and edges.
        backhaul_bytes: With edges, the bytes of the whole run between edges and server; empty without edges.
        stopped: Why the rounds ended before `rounds.count`. None if they did not.
        error: Why the run failed. `error_kind` is "error" for a mistake that the user can correct.
        dp: The privacy loss of all means.
        repeated_dp: The noise of rounds that were repeated after a restart.
    """

    status: Literal["running", "finished", "failed", "stopped"]
    config: dict[str, Any]
    versions: dict[str, str]
    rounds: Rounds = Rounds(())
    base: str | None = None
    clients: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    refused: tuple[RefusalRecord, ...] = ()
    client_versions: dict[int, dict[str, str | None]] = Field(default_factory=dict)
    version_warning: str | None = None
    fell_back: FellBack | None = None
    shared_hash: str | None = None
    generation: GenerationRecord | None = None
    earlier_generations: tuple[GenerationRecord, ...] = ()
    sent_bytes: dict[str, dict[str, int]] = Field(default_factory=dict)
    stopped: str | None = None
    error: str | None = None
    error_kind: str | None = None
    dp: Spent | None = None
    repeated_dp: tuple[RoundNoise, ...] = ()
    backhaul_bytes: dict[str, dict[str, int]] = Field(default_factory=dict)

    @property
    def tasks(self) -> Tasks:
        """Return all tasks, those of earlier generations first."""
        generations = [*self.earlier_generations, *([self.generation] if self.generation else [])]
        return Tasks(tuple(task for each in generations for task in each.tasks))

    def timeless(self) -> "RunRecord":
        """Return the record without durations, in which two runs of one configuration must agree."""

        def without(generation: GenerationRecord) -> GenerationRecord:
            return generation.model_copy(update={"seconds": {}})

        return self.model_copy(
            update={
                "rounds": Rounds(tuple(done.model_copy(update={"seconds": 0.0}) for done in self.rounds)),
                "generation": without(self.generation) if self.generation else None,
                "earlier_generations": tuple(map(without, self.earlier_generations)),
            }
        )

    def write(self, output: Path) -> None:
        """Write `record.json` atomically into a run's folder."""
        write_json(output / RECORD, self.model_dump(mode="json"))


def read_record(output: str | Path) -> RunRecord:
    """Read the record in a run's folder.

    Example:
        >>> import fedaigc as fa
        >>> homes = fa.scenes("runs/record/homes", clients=2, images=4, exist_ok=True)
        >>> few = {"local_steps": 1, "personal_steps": 1}
        >>> run = fa.simulate(homes, rounds=1, training=few, output="runs/record/out", progress=False)
        >>> fa.read_record("runs/record/out").shared_hash == run.shared.hash()
        True

    Raises:
        UserError: If there is none.
        DamagedFile: If the file is not a record of a run of this version.
    """
    path = Path(output) / RECORD
    try:
        values = read_json(path)
        if values is None:
            raise UserError(f"no record in {output}: the run did not start")
        return RunRecord.model_validate(values)
    except OSError as error:
        raise UserError(f"no record in {output}: {error.strerror or error}") from None
    except (ValidationError, ValueError):
        raise DamagedFile(
            f"{path} is not a record of a run: remove it, or choose a new output folder"
        ) from None
