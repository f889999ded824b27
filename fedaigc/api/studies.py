"""Comparisons of strategies over seeds and partitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaigc.api.strategies import Strategy, named_strategy
from fedaigc.errors import UserError
from fedaigc.strategy.sources import is_file
from fedaigc.study.command import compare as run_study
from fedaigc.study.design.config import StudyConfig
from fedaigc.study.results.summary import Mode
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


def compare(
    strategies: Sequence[Strategy],
    *,
    output: str | Path,
    seeds: int | Sequence[int] = 3,
    rounds: int = 10,
    workers: int = 2,
    tuning: dict[str, Any] | None = None,
    **settings: Any,
) -> Study:
    """Compare strategies on simulated clients with images of Scenes, as `fedaigc compare` does.

    Runs that are recorded in `output` already are not repeated, so the call can be repeated after an interruption.

    Args:
        strategies: Names, files, classes or instances. The first is the reference.
        output: Folder for records, tables, plots and report.md.
        seeds: Number of seeds, or the seeds.
        rounds: Rounds of a run.
        workers: Number of processes.
        tuning: Section `tuning` of a study; None: no strategy is tuned.
        **settings: Further sections of a study: `clients`, `training`, `evaluation`, `model`, ...

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
    config = validated(
        StudyConfig,
        {
            "name": target.name,
            "output": target.absolute(),
            "seeds": list(range(seeds)) if isinstance(seeds, int) else list(seeds),
            "workers": workers,
            "tuning": tuning,
            "reference": rows[0]["label"],
            **settings,
            "rounds": {"count": rounds, **settings.get("rounds", {})},
            "strategies": rows,
        },
        "the study",
    )
    if run_study(config) != 0:
        raise UserError(f"the study is not finished: see the messages above, and {target}")
    return Study(config)


def _label(strategy: Strategy) -> str:
    if isinstance(strategy, str | Path):
        return Path(strategy).stem if is_file(str(strategy)) else str(strategy)
    kind = strategy if isinstance(strategy, type) else type(strategy)
    return kind.__module__.rpartition(".")[2] if kind.__name__ == "Strategy" else kind.__name__
