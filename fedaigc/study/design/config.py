"""The configuration of a study: strategies x seeds x partitions, read from TOML into one frozen, validated object."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fedaigc.counting import counted
from fedaigc.data.partition import PartitionSettings
from fedaigc.data.sprites import STYLES
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import UserError
from fedaigc.federation.config.file_paths import (
    place_model,
    place_paths,
    place_start,
    place_strategy,
    place_unless_hub_name,
)
from fedaigc.federation.config.run_config import AdapterSection, ModelSection, RoundsSection
from fedaigc.strategy.sources import is_file
from fedaigc.study.design.evaluation_section import EvaluationSection
from fedaigc.study.design.own_data import StudyOwnData, with_own_data
from fedaigc.study.design.section import Section
from fedaigc.validation import read_toml, validated

Value = bool | int | float | str
Seed = Annotated[int, Field(ge=0)]
PartitionName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
BASELINES = ("base", "pooled", "local only")
# the sections whose keys a row may override
SECTIONS = ("adapter", "rounds", "training", "options")
_EQUAL = (
    "rounds.strategy",
    "rounds.options",
    "rounds.count",
    "rounds.clients",
    "rounds.tensorboard",
    "adapter.start_from",
    "adapter.start_digest",
)


class StudyClients(Section):
    """The simulated clients: their number, the data that each one holds, and how much each one trains.

    Attributes:
        number: Number of all clients, including those in `new`.
        images: Number of images of Scenes in all homes together, divided over the clients by each entry of
            `partitions`.
        new: Clients that never train and are only evaluated.
        seed: Seed of the partition and of the evaluation images. It is the same for every seed of a run, so that
            a client is the same one under each.
        styles: Art styles in which images are drawn.
        data: Own pictures in place of Scenes; see `study.design.own_data`.
        partitions: Named partition settings. A study runs all of them.
        ranks: Rank of the shared factors of each client, for the strategies with `mixed_ranks`.
        local_steps: Local steps of each client in a round.
        local_epochs: Passes over the client's own images in a round, in place of `local_steps`. If neither is
            set, every client runs `training.local_steps`.
    """

    number: Annotated[int, Field(ge=2)] = 10
    images: Annotated[int, Field(ge=2)] = 600
    new: tuple[Annotated[int, Field(ge=0)], ...] = ()
    seed: Seed = 0
    styles: tuple[str, ...] = STYLES
    data: StudyOwnData | None = None
    partitions: dict[PartitionName, PartitionSettings] = Field(
        default_factory=lambda: {"style": PartitionSettings()}
    )
    ranks: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    local_steps: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    local_epochs: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "StudyClients":
        for name in ("ranks", "local_steps"):
            values = getattr(self, name)
            if values is not None and len(values) != self.number:
                raise ValueError(
                    f"{name} has {counted(len(values), 'value')} for {counted(self.number, 'client')}"
                )
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError("local_steps and local_epochs are mutually exclusive: set only one of them")
        if len(set(self.new)) != len(self.new) or any(client >= self.number for client in self.new):
            raise ValueError(f"new: expected different clients from 0 to {self.number - 1}, got {self.new}")
        if len(self.new) > self.number - 2:
            raise ValueError(f"{len(self.new)} of {self.number} clients are new: at least two must train")
        for name in ("images", "styles"):
            if self.data is not None and name in self.model_fields_set:
                raise ValueError(f"{name} belongs to Scenes: leave it out with data of your own")
        unknown = sorted(set(self.styles) - set(STYLES))
        if not self.styles or not self.partitions:
            raise ValueError("styles and partitions: give at least one of each")
        if unknown:
            raise ValueError(f"style {unknown[0]!r} is unknown: expected some of {', '.join(STYLES)}")
        return self


class StrategySection(Section):
    """A row of the table: a strategy with its options, settings and tuning.

    Attributes:
        name: Name of the strategy or path of its file, as in `rounds.strategy`.
        label: Name of the row (default: the name of the strategy, or of its file without the suffix).
        options: Options of the strategy.
        settings: Keys of `adapter`, `training` and `rounds` for this row alone, e.g. {"adapter.rank" = 2}.
        tune: Further keys of the row's tuning grid (key -> values), from `options` and `settings`, or other
            values for a key of `tuning.grid`. A list of one value fixes the key.
        tuning_rounds: Rounds of a trial, in place of `tuning.rounds`.
        tuned_as: Another row whose chosen values this row takes, in place of trials of its own. A control then
            has the values of the row that it controls for.
        mixed_ranks: Whether to train with `clients.ranks`.
        seeds: Seeds of this row, in place of the study's.
        cost: Compute of the row's local round in units of the local steps. Only the time estimate uses it.
    """

    name: str
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    options: dict[str, Value] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    tune: dict[str, Any] | None = None
    tuning_rounds: Annotated[int, Field(ge=1)] | None = None
    tuned_as: str | None = None
    mixed_ranks: bool = False
    seeds: tuple[Seed, ...] | None = None
    cost: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("settings", "tune")
    @classmethod
    def _flat(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if values is None else checked_keys(values)

    @property
    def row(self) -> str:
        """The name of the row."""
        return self.label or (Path(self.name).stem if is_file(self.name) else self.name)


class TuningSection(Section):
    """Choice of hyper-parameters on a validation split and on seeds that are never reported.

    Every row gets `trials` points of `grid` with its own keys: all of them, or a random draw of that number.

    Attributes:
        seeds: Seeds of the trials.
        trials: Number of points that every row tries first.
        grid: The values of each key that all rows are tuned over.
        rounds: Rounds of a trial (default: as many as a run; fewer choose values that win early).
        extensions: How often an optimum on the edge of a grid extends it by one value.
    """

    seeds: tuple[Seed, ...] = (1000,)
    trials: Annotated[int, Field(ge=2)] = 4
    grid: dict[str, Any] = Field(default_factory=lambda: {"training.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2]})
    rounds: Annotated[int, Field(ge=1)] | None = None
    extensions: Annotated[int, Field(ge=0)] = 1

    @field_validator("grid")
    @classmethod
    def _flat(cls, values: dict[str, Any]) -> dict[str, Any]:
        return checked_keys(values)


class BaselinesSection(Section):
    """The rows that every table has: base, pooled and local only.

    Attributes:
        seeds: Seeds of these rows, in place of the study's.
    """

    seeds: tuple[Seed, ...] | None = None


class StudyConfig(Section):
    """One study.

    Attributes:
        name: Name of the study.
        output: Folder of the tables, the plots, report.md and, in `work`, the files that runs need until they
            are done.
        records: Folder with one JSON file per run (default: `records` in the output). If the folder is committed,
            another machine can continue the study.
        seeds: Seeds of the runs.
        workers: Number of processes, each with one torch thread.
        reference: The row that the others are compared with.
        personal: When to train the personal stage: "once" for each client and seed in a separate job (it does not
            depend on the rule), in "each run", or not at all ("none"). A round takes `training.personal_steps`.
        keep_work: Whether to keep the homes and checkpoints of finished runs.
        model: The base model.
        adapter: The shared factors and the boundary t*.
        rounds: The rounds of a run. The strategies are in `strategies`.
        training: The local training.
        clients: The simulated clients.
        evaluation: The primary endpoint.
        tuning: The choice of hyper-parameters; None for none.
        baselines: The rows that every table has.
        strategies: All other rows.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "study"
    output: Path
    records: Path | None = None
    seeds: tuple[Seed, ...] = (0, 1, 2)
    workers: Annotated[int, Field(ge=1)] = 2
    reference: str = "fedit"
    personal: Literal["once", "each run", "none"] = "none"
    keep_work: bool = False
    model: ModelSection = ModelSection()
    adapter: AdapterSection = AdapterSection()
    rounds: RoundsSection = RoundsSection()
    training: TrainingSettings = TrainingSettings()
    clients: StudyClients = StudyClients()
    evaluation: EvaluationSection = EvaluationSection()
    tuning: TuningSection | None = None
    baselines: BaselinesSection = BaselinesSection()
    strategies: tuple[StrategySection, ...]

    @model_validator(mode="after")
    def _consistent(self) -> "StudyConfig":
        given = self.rounds.model_fields_set & {"strategy", "options"}
        if given:
            raise ValueError(f"rounds.{min(given)} is not allowed: set it in [[strategies]]")
        held = {
            "early_stopping": self.rounds.early_stopping,
            "validation_fraction": self.rounds.validation_fraction,
        }
        for key, value in held.items():
            if value:
                raise ValueError(
                    f"rounds.{key} is not allowed: all rows of a study train the same rounds, and it measures them on "
                    "images of its own"
                )
        if self.rounds.count < 1:
            raise ValueError("rounds.count is 0: expected at least 1, since a comparison needs training")
        trained = self.clients.number - len(self.clients.new)
        gallery = self.evaluation.gallery
        if gallery and gallery < max(2, trained):
            raise ValueError(
                f"evaluation.gallery is {gallery}: expected 0, or at least one picture for each of the "
                f"{trained} clients that train, and two in all"
            )
        measured = self.evaluation.keep_pictures or self.evaluation.scorer != "none"
        if not gallery and (measured or self.evaluation.features is not None):
            raise ValueError("evaluation.gallery is 0: measures of pictures need some, such as gallery = 64")
        if self.evaluation.features == "judge" and self.clients.data is not None:
            raise ValueError(
                'evaluation.features: the judge knows Scenes alone; use "inception" for own pictures'
            )
        if self.rounds.clients is not None and self.rounds.clients > trained:
            raise ValueError(
                f"rounds.clients is {self.rounds.clients}: expected at most {trained}, the clients that train"
            )
        rows = [strategy.row for strategy in self.strategies]
        for row in rows:
            if rows.count(row) > 1:
                raise ValueError(f"two strategies are called {row!r}: give one of them another label")
            if row in BASELINES:
                raise ValueError(f"{row!r} is the label of a baseline: choose another one")
        if self.reference not in rows:
            raise ValueError(f"reference {self.reference!r} is not a row: expected one of {', '.join(rows)}")
        for strategy in self.strategies:
            own = [row.row for row in self.strategies if row.tuned_as is None]
            if strategy.tuned_as is not None and strategy.tuned_as not in own:
                raise ValueError(
                    f"{strategy.row}: tuned_as is {strategy.tuned_as!r}, which is not a row with its own trials"
                )
            if strategy.tuned_as is not None and (strategy.tune is not None or strategy.tuning_rounds):
                raise ValueError(f"{strategy.row}: tuned_as and its own tuning are mutually exclusive")
        if any(strategy.mixed_ranks for strategy in self.strategies) and self.clients.ranks is None:
            raise ValueError("mixed_ranks needs clients.ranks")
        lists = [self.seeds, self.baselines.seeds, *(strategy.seeds for strategy in self.strategies)]
        tuned = self.tuning.seeds if self.tuning is not None else None
        for seeds in (*lists, tuned):
            if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
                raise ValueError(f"expected one or more different seeds, got {list(seeds)}")
        shared = set(tuned or ()) & {seed for seeds in lists if seeds is not None for seed in seeds}
        if shared:
            raise ValueError(f"seed {min(shared)} is used for tuning and reported: use different seeds")
        return self

    @property
    def records_folder(self) -> Path:
        """The folder of the records."""
        return self.output / "records" if self.records is None else self.records

    @property
    def work(self) -> Path:
        """The folder of the files that runs need until they are done: data, homes, checkpoints, logs."""
        return self.output / "work"

    @property
    def keeps_pictures(self) -> bool:
        """Whether runs keep the pictures that they draw."""
        told = self.evaluation
        measured = told.keep_pictures or told.scorer != "none" or told.features == "inception"
        return bool(told.gallery) and (measured or self.clients.data is not None)

    @property
    def tuned_shorter(self) -> list[str]:
        """Rows whose trials have fewer rounds than the reported runs and may choose values that win early."""
        if self.tuning is None:
            return []
        common = self.tuning.rounds or self.rounds.count
        own = {row.row: row.tuning_rounds or common for row in self.strategies}
        rows: dict[str, int] = {name: common for name in BASELINES if name != "base"}
        rows |= {row.row: own[row.tuned_as or row.row] for row in self.strategies}
        return [name for name, rounds in rows.items() if rounds < self.rounds.count]


def read_study(path: Path, changes: Sequence[str] = ()) -> StudyConfig:
    """Read the study of a TOML file.

    Args:
        path: The file. Relative paths in it count from its folder, those in `changes` from the working folder.
        changes: Values that replace those of the file, such as "rounds.count=5"; see `read_toml`.

    Raises:
        UserError: The file cannot be read, or its content is not valid.
    """
    values = with_own_data(read_toml(path, changes, StudyConfig, _place))
    return validated(StudyConfig, values, str(path))


def _place(values: dict[str, Any], folder: Path) -> None:
    place_paths(values, ("output", "records"), folder)
    place_model(values, folder)
    place_start(values.get("adapter"), folder)
    if isinstance(values.get("evaluation"), dict):
        place_paths(values["evaluation"], ("inception_weights",), folder)
        place_unless_hub_name(values["evaluation"], "evaluation.clip_model", folder)
    clients = values.get("clients")
    if isinstance(clients, dict):
        place_unless_hub_name(clients.get("data"), "clients.data.source", folder)
    rows = values.get("strategies")
    for row in rows if isinstance(rows, list) else ():
        place_strategy(row, "name", folder)


def checked_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested tables to dotted keys.

    Raises:
        ValueError: A key belongs to another section than `SECTIONS`, or rows may not set it.
    """
    flat = dict(_flattened("", values))
    for key in flat:
        section, _, name = key.partition(".")
        if section not in SECTIONS or not name or key in _EQUAL:
            raise ValueError(f"{key!r}: expected a key such as 'training.learning_rate' or 'options.eta'")
    return flat


def _flattened(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def grid_of(study: StudyConfig, strategy: StrategySection | None) -> dict[str, list[Value]]:
    """Return the values that each key of a row is tuned over: the common grid and the row's own.

    Args:
        study: The study.
        strategy: The row; None for a baseline, which has the common grid alone.

    Returns:
        The values by key, sorted by key; empty without tuning.

    Raises:
        UserError: The grid has fewer points than every row gets trials, or the values of a key are not a list of
            different values.
    """
    if study.tuning is None:
        return {}
    own = (strategy.tune if strategy is not None else None) or {}
    grid = {**study.tuning.grid, **own}
    row = strategy.row if strategy is not None else "tuning.grid"
    size = 1
    for key, values in grid.items():
        if not isinstance(values, list) or len(set(map(repr, values))) != len(values) or not values:
            raise UserError(f"{row}: {key} is tuned over a list of different values, got {values!r}")
        size *= len(values)
    if size < study.tuning.trials:
        raise UserError(
            f"{row}: its grid has {counted(size, 'point')}, and every row gets "
            f"{counted(study.tuning.trials, 'trial')}: give it more values, or lower tuning.trials"
        )
    return {key: list(grid[key]) for key in sorted(grid)}
