"""All runs of a study, done or not: trials first, then runs with the values that the trials chose.

Whether a run is done, and need not be computed again, is decided by `study.results.records.recorded`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedaigc.device.pool import read_pool
from fedaigc.errors import UserError
from fedaigc.strategy.registry import load_strategy
from fedaigc.study.design.clients import DataSpec, StudyClient, gallery_counts, participants, split_clients
from fedaigc.study.design.config import StrategySection, StudyConfig, Value, grid_of
from fedaigc.study.design.runs import RunSpec, base_run, personal_run, row_run
from fedaigc.study.design.tuning import Choice, Point, choose
from fedaigc.study.results.records import StudyRecord

Row = StrategySection | str


@dataclass
class Plan:
    """The runs of a study as far as they are known.

    Attributes:
        runs: All runs that are known now, including finished ones, in the order in which to run them.
        later: Runs whose values are not chosen yet, with the values of the first pending trial as placeholders.
        choices: The tuning by (row, partition).
    """

    runs: list[RunSpec] = field(default_factory=list)
    later: list[RunSpec] = field(default_factory=list)
    choices: dict[tuple[str, str], Choice] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A checked study.

    Attributes:
        study: The configuration.
        clients: The clients of each partition.
    """

    study: StudyConfig
    clients: Mapping[str, list[StudyClient]]


def prepare(study: StudyConfig) -> Prepared:
    """Check what the configuration alone cannot: strategies, options, grids, partitions, and rows that are equal.

    Raises:
        UserError: The study cannot run as configured; the message states what to change.
    """
    equal: dict[tuple[str, str, str | None], str] = {}
    for strategy in study.strategies:
        grid_of(study, strategy)
        rule = load_strategy(strategy.name, strategy.options)
        if strategy.mixed_ranks and not rule.traits.any_rank:
            raise UserError(f"{strategy.row}: {strategy.name} needs equal ranks: remove mixed_ranks")
        setting = _setting(strategy, with_options=not rule.equals)
        same = (rule.equals or strategy.name, setting, rule.weighting)
        if same in equal:
            raise UserError(
                f"{strategy.row!r} and {equal[same]!r} are the same rule by construction with the same "
                "settings: remove one of them"
            )
        equal[same] = strategy.row
    grid_of(study, None)
    clients = {
        name: split_clients(DataSpec.of(study.clients, settings))
        for name, settings in study.clients.partitions.items()
    }
    if study.clients.data is not None:
        read_pool(study.clients.data).check()
        for own in clients.values():
            gallery_counts(participants(own), study.evaluation.gallery)
    prepared = Prepared(study, clients)
    make_plan(prepared, {})  # builds, and so validates, every row's federation
    return prepared


def make_plan(prepared: Prepared, records: Mapping[str, StudyRecord]) -> Plan:
    """Return the runs of a study as far as they are known.

    Args:
        prepared: The study.
        records: The records by the hash of their run.
    """
    study, plan = prepared.study, Plan()
    for partition in study.clients.partitions:
        plan.runs.append(base_run(study, partition))
    rows: list[Row] = ["pooled", "local only", *study.strategies]
    for partition, clients in prepared.clients.items():
        for row in rows:
            _plan_row(plan, study, row, partition, clients, records)
        if study.personal == "once":
            plan.runs += [personal_run(study, partition, clients, seed) for seed in study.seeds]
    # trials first, then seed by seed: a study that is stopped has complete tables of fewer seeds
    plan.runs.sort(key=lambda run: (run.purpose == "report", -1 if run.seed is None else run.seed))
    return plan


def _plan_row(
    plan: Plan,
    study: StudyConfig,
    row: Row,
    partition: str,
    clients: list[StudyClient],
    records: Mapping[str, StudyRecord],
) -> None:
    strategy = None if isinstance(row, str) else row
    label = row if isinstance(row, str) else row.row
    own = study.baselines.seeds if strategy is None else strategy.seeds
    seeds = study.seeds if own is None else own
    tuned: Row = row
    if strategy is not None and strategy.tuned_as is not None:
        tuned = next(other for other in study.strategies if other.row == strategy.tuned_as)
    grid, tuning = grid_of(study, None if isinstance(tuned, str) else tuned), study.tuning
    if tuning is None:
        plan.runs += [row_run(study, row, partition, clients, seed, {}, trial=False) for seed in seeds]
        return

    def trials(point: Point) -> list[RunSpec]:
        return [row_run(study, tuned, partition, clients, seed, point, trial=True) for seed in tuning.seeds]

    def loss(point: Point) -> float | None:
        found = [records.get(run.hash) for run in trials(point)]
        losses = [record.final_loss for record in found if record is not None and record.is_done]
        return sum(losses) / len(losses) if len(losses) == len(found) else None

    def possible(point: Point) -> bool:
        try:
            runs = trials(point)
            load_strategy(runs[0].federation["rounds"]["strategy"], runs[0].federation["rounds"]["options"])
        except UserError:
            return False
        return True

    choice = choose(grid, loss, trials=tuning.trials, extensions=tuning.extensions, possible=possible)
    plan.choices[label, partition] = choice
    tried: list[Point] = [point for point, _ in choice.trials]
    plan.runs += [run for point in (*tried, *choice.waiting) for run in trials(point)]
    values: Mapping[str, Value] = choice.waiting[0] if choice.waiting else choice.best
    runs = [
        row_run(study, row, partition, clients, seed, values, trial=False, tuning=_told(choice))
        for seed in seeds
    ]
    (plan.later if choice.waiting else plan.runs).extend(runs)


def _told(choice: Choice) -> dict[str, Any]:
    """The tuning as a record holds it."""
    return {
        "trials": [
            {"values": point, "loss": loss if math.isfinite(loss) else None} for point, loss in choice.trials
        ],
        "extended": choice.extended,
        "edges": list(choice.edges),
    }


def _setting(strategy: StrategySection, *, with_options: bool) -> str:
    """The settings that make two rows of one rule differ."""
    values = strategy.model_dump(mode="json", include={"settings", "mixed_ranks"})
    values["options"] = strategy.options if with_options else {}
    return repr(sorted(values.items()))
