"""Comparisons of strategies over seeds and partitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaigc.api.own_data import Data, data_section
from fedaigc.api.strategies import Strategy, named_strategy
from fedaigc.counting import counted
from fedaigc.errors import UserError
from fedaigc.strategy.sources import is_file
from fedaigc.study.command import compare as run_study
from fedaigc.study.design.config import StudyConfig, read_study
from fedaigc.study.design.own_data import with_own_data
from fedaigc.study.design.planned_runs import prepare
from fedaigc.study.execute.measures import Features, Metric
from fedaigc.study.results.curves import curves_frame, losses_frame
from fedaigc.study.results.load import read_results
from fedaigc.study.results.summary import MODES, Mode, PartitionResults
from fedaigc.validation import validated

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        config: Its configuration.
    """

    config: StudyConfig

    @classmethod
    def read(cls, path: str | Path) -> "Study":
        """Return the study of a TOML file, which `fedaigc compare` ran.

        Args:
            path: The file.

        Raises:
            UserError: If the file cannot be read, or its content is not valid.
        """
        return cls(read_study(Path(path)))

    def __repr__(self) -> str:
        rows, seeds = len(self.config.strategies), len(self.config.seeds)
        return (
            f"<Study {self.config.name!r}: {rows} strategies, {counted(seeds, 'seed')}, {self.config.output}>"
        )

    @property
    def report(self) -> Path:
        """The report with tables and plots."""
        return self.config.output / "report.md"

    def table(self, mode: Mode = "collaborative", partition: str | None = None) -> "DataFrame":
        """Return the table of a mode, one row a strategy.

        Args:
            mode: "collaborative" (the edge runs the global state) or "device".
            partition: Name of the partition; default: the first.
        """
        from pandas import read_csv

        name = partition if partition is not None else next(iter(self.config.clients.partitions))
        path = self.config.output / "tables" / f"{name}-{mode}.csv"
        if not path.is_file():
            raise UserError(f"no table {path.name} in {path.parent}")
        return read_csv(path)

    def curves(self, mode: Mode = "collaborative", partition: str | None = None) -> "DataFrame":
        """Return the loss by round with its intervals, as the plot of the report shows it.

        A line for each strategy or baseline and each round that was evaluated (`evaluation.every`); rows that did not
        finish under every seed are left out. Columns: row, baseline, round (0: before training), loss, low and high
        (95 % t interval over seeds; under one seed both equal the loss), n (seeds).

        Args:
            mode: As in `table`.
            partition: As in `table`.

        Raises:
            UserError: If nothing is recorded, or the mode or the partition is unknown.
        """
        if mode not in MODES:
            raise UserError(f"mode {mode!r:.60} is unknown: expected one of {', '.join(MODES)}")
        return curves_frame(self._results(partition), self.config.seeds, mode)

    def losses(self, partition: str | None = None) -> "DataFrame":
        """Return every measured loss: a line for each row, seed, round, mode and client.

        Columns: row, baseline, seed, round, mode, client, new (whether the client never trained), loss.

        Args:
            partition: As in `table`.

        Raises:
            UserError: If nothing is recorded, or the partition is unknown.
        """
        return losses_frame(self._results(partition))

    def _results(self, partition: str | None) -> PartitionResults:
        known = list(self.config.clients.partitions)
        if partition is not None and partition not in known:
            raise UserError(f"partition {partition!r:.60} is unknown: expected one of {', '.join(known)}")
        name = known[0] if partition is None else partition
        found = read_results(prepare(self.config))
        return next(result for result in found if result.partition == name)


def compare(
    strategies: Sequence[Strategy],
    *,
    output: str | Path,
    seeds: int | Sequence[int] = 3,
    rounds: int = 10,
    workers: int = 2,
    tuning: dict[str, Any] | None = None,
    data: Data | None = None,
    partition: str | Mapping[str, Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    features: str | Features | None = None,
    progress: bool = True,
    **settings: Any,
) -> Study:
    """Compare strategies on simulated clients with images of Scenes or of your own, as `fedaigc compare` does.

    Runs that are recorded in `output` already are not repeated, so the call can be repeated after an interruption.

    Example:
        >>> import fedaigc as fa
        >>> few = {"clients": {"number": 2, "images": 4}, "training": {"local_steps": 1, "personal_steps": 1}}
        >>> two = ["fedit", "ffa_lora"]
        >>> study = fa.compare(two, output="runs/compare/two", seeds=1, rounds=1, progress=False, **few)
        >>> study.report.name
        'report.md'

    Args:
        strategies: Names, files, classes or instances. The first is the reference.
        output: Folder for records, tables, plots and report.md.
        seeds: Number of seeds, or the seeds.
        rounds: Rounds of a run.
        workers: Number of processes.
        tuning: Section `tuning` of a study; None: no strategy is tuned.
        data: Pictures of your own in place of Scenes: a folder with captions, a `datasets.Dataset` with the columns
            image and caption or a folder of one, a folder of homes, a hub name in the local cache, or the section
            `clients.data` of a study. A column or key "label" holds the labels, unless the section names another.
        partition: How the pictures are divided over the clients: a kind ("iid", "dirichlet", "pathological",
            "natural"), or the settings of `PartitionSettings`. None: as in `clients`, by default at random. Homes
            are clients as they are.
        metrics: Measures of the pictures that every run draws after its last round, by name: a function of a list of
            pictures and a list of prompts that returns a number, or one for each picture. They need
            `evaluation={"gallery": 64}`. A function whose source changes is computed again.
        features: Features of these pictures for the Frechet distance and KID to real ones: "inception" for FID and
            KID proper, or a function of a list of pictures to an array [n, d].
        progress: Whether to show what is done and the time left. Without, nothing is measured for an estimate.
        **settings: Further sections of a study: `clients={"number": 8}`, `training`, `evaluation`, `model`, ...

    Raises:
        UserError: If a setting is wrong, or a run failed.
    """
    target = Path(output)
    rows: list[dict[str, Any]] = []
    for strategy in strategies:
        name, options = named_strategy(strategy, target / "strategies")
        rows.append({"name": name, "options": options, "label": _label(strategy)})
    labels = [row["label"] for row in rows]
    for row in rows:
        if labels.count(row["label"]) > 1 and row["options"]:
            row["label"] += f", {', '.join(f'{key} {value}' for key, value in row['options'].items())}"
    if not rows:
        raise UserError("no strategies: give at least one")
    evaluation = dict(settings.get("evaluation", {}))
    if metrics or callable(features):
        evaluation["keep_pictures"] = True
    if isinstance(features, str):
        evaluation["features"] = features
    sections = {
        **settings,
        "clients": _clients(settings.get("clients", {}), data, partition, target),
        "evaluation": evaluation,
    }
    config = validated(
        StudyConfig,
        with_own_data(
            {
                "name": target.name,
                "output": target.absolute(),
                "seeds": list(range(seeds)) if isinstance(seeds, int) else list(seeds),
                "workers": workers,
                "tuning": tuning,
                "reference": rows[0]["label"],
                **sections,
                "rounds": {"count": rounds, **settings.get("rounds", {})},
                "strategies": rows,
            }
        ),
        "the study",
    )
    own = features if callable(features) else None
    if run_study(config, metrics=metrics, features=own, progress=progress) != 0:
        raise UserError(f"the study is not finished: see the messages above, and {target}")
    return Study(config)


def _clients(
    section: Mapping[str, Any], data: Data | None, partition: str | Mapping[str, Any] | None, target: Path
) -> dict[str, Any]:
    """Return the section `clients` of a study with own pictures and their partition."""
    found = dict(section)
    if data is not None:
        if "data" in found:
            raise UserError("the pictures are given twice: as data and in clients; give one of them")
        found["data"] = data_section(data, target / "work" / "own-data")
    if partition is not None:
        if "partitions" in found:
            raise UserError("the partition is given twice: as partition and in clients; give one of them")
        settings = {"kind": partition} if isinstance(partition, str) else dict(partition)
        found["partitions"] = {str(settings.get("kind", "style")): settings}
    return found


def _label(strategy: Strategy) -> str:
    if isinstance(strategy, str | Path):
        return Path(strategy).stem if is_file(str(strategy)) else str(strategy)
    kind = strategy if isinstance(strategy, type) else type(strategy)
    return kind.__module__.rpartition(".")[2] if kind.__name__ == "Strategy" else kind.__name__
