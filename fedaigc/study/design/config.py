"""The configuration of a study: strategies x seeds x partitions, one frozen, validated object from TOML."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fedaigc.data.partition import PartitionSettings
from fedaigc.data.sprites import STYLES
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import AdapterSection, ModelSection, RoundsSection
from fedaigc.strategy.sources import is_file
from fedaigc.validation import read_toml, validated

Value = bool | int | float | str
Seed = Annotated[int, Field(ge=0)]
PartitionName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
BASELINES = ("base", "pooled", "local only")
# what a strategy may set for itself, beside its options
SECTIONS = ("adapter", "rounds", "training", "options")
_EQUAL = ("rounds.strategy", "rounds.options", "rounds.count", "rounds.clients", "rounds.tensorboard")


class Section(BaseModel):
    """A frozen table of the file without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StudyClients(Section):
    """The simulated clients: how many, what each holds, and how much each trains.

    number: all clients, those in `new` included: these never train, and are only evaluated. images: in all
    homes together, split by each of `partitions` (named; a study runs all). seed: of the split and of the
    pictures that clients are evaluated on; the same for every seed of a run, so that a client is the same one
    under each. styles: that pictures are drawn in.

    What differs between clients, one value a client: `ranks` of the shared factors, for the strategies with
    `mixed_ranks`; `local_steps` of a round. In place of these `local_epochs`: passes over the client's own
    images in a round. Neither: `training.local_steps` for all.
    """

    number: Annotated[int, Field(ge=2)] = 10
    images: Annotated[int, Field(ge=2)] = 600
    new: tuple[Annotated[int, Field(ge=0)], ...] = ()
    seed: Seed = 0
    styles: tuple[str, ...] = STYLES
    partitions: dict[PartitionName, PartitionSettings] = {"style": PartitionSettings()}
    ranks: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    local_steps: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    local_epochs: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "StudyClients":
        for name in ("ranks", "local_steps"):
            values = getattr(self, name)
            if values is not None and len(values) != self.number:
                raise ValueError(f"{name} has {len(values)} values for {self.number} clients")
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError("local_steps and local_epochs: give one of them")
        if len(set(self.new)) != len(self.new) or any(client >= self.number for client in self.new):
            raise ValueError(f"new: expected different clients from 0 to {self.number - 1}, got {self.new}")
        if len(self.new) > self.number - 2:
            raise ValueError(f"{len(self.new)} of {self.number} clients are new: at least two must train")
        unknown = sorted(set(self.styles) - set(STYLES))
        if not self.styles or not self.partitions:
            raise ValueError("styles and partitions: give at least one of each")
        if unknown:
            raise ValueError(f"style {unknown[0]!r} is unknown: expected some of {', '.join(STYLES)}")
        return self


class StrategySection(Section):
    """A row of the table.

    name: of the strategy or its file, as in `rounds.strategy`, with its `options`. label: the row's own name
    (default: the rule's). settings: keys of `adapter`, `training` and `rounds` for this row alone, e.g.
    {"adapter.rank" = 2}. mixed_ranks: train with `clients.ranks`. seeds: in place of the study's. cost:
    compute of its local round in units of the local steps, for the estimate of the time only.

    tune: further keys of its grid, key -> values, for keys of `options` and `settings`, or other values for a
    key of `tuning.grid`; a list of one value fixes it. tuning_rounds: of its trials, in place of
    `tuning.rounds`. tuned_as: another row, whose choice it takes in place of trials of its own: a control has
    the values of what it controls.
    """

    name: str
    label: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    options: dict[str, Value] = {}
    settings: dict[str, Any] = {}
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
        """What the row is called."""
        return self.label or (Path(self.name).stem if is_file(self.name) else self.name)


class TuningSection(Section):
    """Choice of hyper-parameters on a validation split and on seeds that are never reported.

    Every row gets `trials` points of `grid` with its own keys: all of them, or so many drawn from them.
    rounds: of a trial (default: as many as a run; fewer choose values that win early). extensions: how often
    an optimum on the edge of a grid extends it by one value.
    """

    seeds: tuple[Seed, ...] = (1000,)
    trials: Annotated[int, Field(ge=2)] = 4
    grid: dict[str, Any] = {"training.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2]}
    rounds: Annotated[int, Field(ge=1)] | None = None
    extensions: Annotated[int, Field(ge=0)] = 1

    @field_validator("grid")
    @classmethod
    def _flat(cls, values: dict[str, Any]) -> dict[str, Any]:
        return checked_keys(values)


class EvaluationSection(Section):
    """The primary endpoint: denoising loss of the shared stage on fixed (image, timestep, noise) triples.

    triples: a client, over its test_images (or, for trials, its validation_images): fresh pictures of its
    own distribution, which no home holds. every: rounds between two evaluations; the last round always has
    one.

    gallery: pictures that a row draws after its last round, to be compared with as many real ones; 0 for
    none. It takes 1000 for numbers that are worth a table. gallery_steps, gallery_guidance: of drawing.
    """

    triples: Annotated[int, Field(ge=1)] = 64
    test_images: Annotated[int, Field(ge=1)] = 32
    validation_images: Annotated[int, Field(ge=1)] = 16
    every: Annotated[int, Field(ge=1)] = 4
    gallery: Annotated[int, Field(ge=0)] = 0
    gallery_steps: Annotated[int, Field(ge=1)] = 11
    gallery_guidance: Annotated[float, Field(ge=0)] = 5.0


class BaselinesSection(Section):
    """The rows that are always there: base, pooled, local only. seeds: in place of the study's."""

    seeds: tuple[Seed, ...] | None = None


class StudyConfig(Section):
    """One study.

    output: tables, plots, report.md and, in `work`, what runs need until they are done. records: one JSON
    file a run (default: `records` in the output); a folder that is committed lets another machine go on.
    workers: processes, each with one torch thread. reference: the row that the others are compared with.
    personal: the personal stage is trained "once" for each client and seed in a job of its own (it does not
    depend on the rule), in "each run", or not ("none"); `training.personal_steps` a round. keep_work: keep
    homes and checkpoints of finished runs.
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
            raise ValueError(f"rounds.{min(given)} belongs into [[strategies]]")
        if self.rounds.count < 1:
            raise ValueError("rounds.count is 0: a comparison needs training")
        trained = self.clients.number - len(self.clients.new)
        gallery = self.evaluation.gallery
        if gallery and gallery < max(2, trained):
            raise ValueError(
                f"evaluation.gallery is {gallery}: expected 0, or at least one picture for each of the "
                f"{trained} clients that train, and two in all"
            )
        if self.rounds.clients is not None and self.rounds.clients > trained:
            raise ValueError(f"rounds.clients is {self.rounds.clients}, and only {trained} clients train")
        rows = [strategy.row for strategy in self.strategies]
        for row in rows:
            if rows.count(row) > 1:
                raise ValueError(f"two strategies are called {row!r}: give one of them another label")
            if row in BASELINES:
                raise ValueError(f"{row!r} is a row that is always there: take another label")
        if self.reference not in rows:
            raise ValueError(f"the reference {self.reference!r} is none of {', '.join(rows)}")
        for strategy in self.strategies:
            own = [row.row for row in self.strategies if row.tuned_as is None]
            if strategy.tuned_as is not None and strategy.tuned_as not in own:
                raise ValueError(
                    f"{strategy.row}: tuned_as is {strategy.tuned_as!r}, no row with trials of its own"
                )
            if strategy.tuned_as is not None and (strategy.tune is not None or strategy.tuning_rounds):
                raise ValueError(f"{strategy.row}: tuned_as, or a tuning of its own")
        if any(strategy.mixed_ranks for strategy in self.strategies) and self.clients.ranks is None:
            raise ValueError("mixed_ranks needs clients.ranks")
        lists = [self.seeds, self.baselines.seeds, *(strategy.seeds for strategy in self.strategies)]
        tuned = self.tuning.seeds if self.tuning is not None else None
        for seeds in (*lists, tuned):
            if seeds is not None and (not seeds or len(set(seeds)) != len(seeds)):
                raise ValueError(f"expected one or more different seeds, got {list(seeds)}")
        shared = set(tuned or ()) & {seed for seeds in lists if seeds is not None for seed in seeds}
        if shared:
            raise ValueError(f"seed {min(shared)} is tuned on and reported: expected different seeds")
        return self

    @property
    def records_folder(self) -> Path:
        """Where the records are."""
        return self.output / "records" if self.records is None else self.records

    @property
    def work(self) -> Path:
        """What runs need until they are done: data, homes, checkpoints, logs."""
        return self.output / "work"

    @property
    def tuned_shorter(self) -> list[str]:
        """Rows whose trials end before the reported runs do: what wins early may be chosen."""
        if self.tuning is None:
            return []
        common = self.tuning.rounds or self.rounds.count
        own = {row.row: row.tuning_rounds or common for row in self.strategies}
        rows: dict[str, int] = {name: common for name in BASELINES if name != "base"}
        rows |= {row.row: own[row.tuned_as or row.row] for row in self.strategies}
        return [name for name, rounds in rows.items() if rounds < self.rounds.count]


def read_study(path: Path) -> StudyConfig:
    """Read a TOML file; relative paths in it count from its folder. Raises UserError when it is not right."""
    study = validated(StudyConfig, read_toml(path), str(path))
    folder = path.absolute().parent
    changed: dict[str, Any] = {"output": folder / study.output}
    if study.records is not None:
        changed["records"] = folder / study.records
    if any(is_file(row.name) for row in study.strategies):
        changed["strategies"] = tuple(
            row.model_copy(update={"name": str(folder / row.name)}) if is_file(row.name) else row
            for row in study.strategies
        )
    local = folder / study.model.name
    if local.is_dir():
        changed["model"] = study.model.model_copy(update={"name": str(local)})
    return study.model_copy(update=changed)


def checked_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys for nested tables. ValueError for a key of another section than `SECTIONS`."""
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
    """The values that each key of a row is tuned over: the common grid and its own; empty without tuning.

    strategy: None for a baseline, which has the common grid alone.

    Raises UserError for a grid with fewer points than every row gets trials.
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
            f"{row}: its grid has {size} points, and every row gets {study.tuning.trials} trials: "
            "give it more values, or lower tuning.trials"
        )
    return {key: list(grid[key]) for key in sorted(grid)}
