"""The tables of a comparison, as a reviewer asks for them: first the gate, then each mode separately."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from fedaigc.counting import counted
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate
from fedaigc.strategy.accountant import shown
from fedaigc.study.design.config import StudyConfig, Value
from fedaigc.study.results.statistics import (
    GATE_SDS,
    Comparison,
    compare,
    margin_in_sds,
    seed_means,
    t_interval,
    worst_tenth_mean,
)
from fedaigc.study.results.summary import Mode, PartitionResults, RowResults
from fedaigc.study.results.table_files import NONE, Cell, Column, Table

EDGE_MARK = " (edge)"
_DIGITS = 4
_GALLERY_DIGITS = 2


def gate(results: PartitionResults, seeds: Sequence[int]) -> tuple[Table, str]:
    """Return the table of base, pooled and local only, and the verdict whether shared training gains anything.

    The margin is that of pooled over base in standard deviations over seeds: see `margin_in_sds`.
    """
    rows = []
    for name in ("base", "pooled", "local only"):
        row = results.row(name)
        mode: Mode = "device" if name == "local only" else "collaborative"
        rows.append((name, *_loss_cells(row, seeds, mode), _mean_of_new(row, seeds, mode)))
    columns = (
        Column("row"),
        Column("loss", "right", _DIGITS),
        Column("worst tenth", "right"),
        Column("new clients", "right"),
    )
    table = Table(columns, tuple(rows))
    base, pooled = (seed_losses(results.row(name), seeds, "collaborative") for name in ("base", "pooled"))
    try:
        margin = margin_in_sds(base, pooled)
    except UserError as error:
        return table, f"Gate: cannot be judged ({error})."
    gain = fmean(base.values()) - fmean(pooled.values())
    verdict = "passed" if margin >= GATE_SDS else "not passed: differences below say little"
    return table, (
        f"Gate: pooled training lowers the loss of the base by {gain:.{_DIGITS}f}, {margin:.1f} standard "
        f"deviations over {counted(len(base), 'seed')}; {GATE_SDS:.0f} are wanted: {verdict}."
    )


def seed_losses(row: RowResults, seeds: Sequence[int], mode: Mode, at: int = -1) -> dict[int, float]:
    """Return the mean over the clients that train, by seed."""
    scores = row.scores(seeds, mode, at=at)
    return seed_means({(score.seed, score.client): score.value for score in scores})


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean and 95 % t interval; for one seed, or a row without a seed, the value alone."""
    if len(values) < 2 or len(set(values)) == 1:
        return Estimate(values[0], values[0], values[0], len(values))
    return t_interval(values)


def compared(
    results: PartitionResults, seeds: Sequence[int], mode: Mode, reference: str
) -> dict[str, Comparison]:
    """Return the paired differences of every complete row to the reference, by row.

    Holm's correction is over strategies alone, not baselines. It covers all strategies of the study, including
    those without these seeds: a strategy may have been given more seeds because of its result with fewer.

    Returns:
        The comparisons; empty if the reference has no scores, and for one seed.
    """
    if len(seeds) < 2:
        return {}
    complete = [row for row in results.rows if row.complete(seeds) and row.scores(seeds, mode)]
    if reference not in [row.name for row in complete]:
        return {}
    scores = {row.name: row.scores(seeds, mode) for row in complete}
    strategies = [score for row in complete if not row.baseline for score in scores[row.name]]
    tested = sum(
        not row.baseline and row.name != reference and bool(row.scores(row.expected, mode))
        for row in results.rows
    )
    found = {each.strategy: each for each in compare(strategies, reference, hypotheses=tested)}
    for row in complete:
        if row.baseline:
            (each,) = compare([*scores[row.name], *scores[reference]], reference)
            found[row.name] = each
    return found


def mode_table(results: PartitionResults, seeds: Sequence[int], mode: Mode, reference: str) -> Table:
    """Return all rows in one mode: loss, differences to the reference, worst tenth, new clients, bytes, time.

    If a row has noise of differential privacy, there is a column for epsilon; and one for each measure of pictures.
    """
    comparisons = compared(results, seeds, mode, reference)
    noisy, measures = has_noise(results, seeds), measure_names(results, seeds)
    validated = any("validation" in _last(row, seeds) for row in results.rows if row.complete(seeds))
    rows: list[tuple[Cell, ...]] = []
    for row in results.rows:
        if not row.complete(seeds):
            continue
        loss, worst = _loss_cells(row, seeds, mode)
        found = comparisons.get(row.name)
        rows.append(
            (
                row.name,
                loss,
                found.over_seeds if found is not None else NONE,
                found.over_clients if found is not None else NONE,
                f"{found.p_holm:.3f}" if found is not None and not row.baseline else NONE,
                worst,
                _mean_of_new(row, seeds, mode),
                _megabytes(row, seeds, "up"),
                _megabytes(row, seeds, "down"),
                _seconds(row, seeds),
                *((_epsilon(row, seeds),) if noisy else ()),
                *((_validation(row, seeds, mode),) if validated else ()),
                *(_measured(row, seeds, mode, name) for name in measures),
            )
        )
    columns = (
        Column("row"),
        Column("loss", "right", _DIGITS),
        Column(f"difference to {reference}", "right", _DIGITS),
        Column("the same, over clients too", "right", _DIGITS),
        Column("p (Holm)", "right"),
        Column("worst tenth", "right"),
        Column("new clients", "right"),
        Column("MB up", "right"),
        Column("MB down", "right"),
        Column("seconds", "right"),
        *((Column("epsilon", "right"),) if noisy else ()),
        *((Column("validation loss", "right", _DIGITS),) if validated else ()),
        *(Column(name, "right", _DIGITS) for name in measures),
    )
    return Table(columns, tuple(rows))


def measure_names(results: PartitionResults, seeds: Sequence[int]) -> list[str]:
    """Return the measures of pictures in the records of these seeds."""
    found: dict[str, None] = {}
    for row in results.rows:
        for seed in seeds if row.complete(seeds) else ():
            for values in row.records[seed].measures.values():
                found |= dict.fromkeys(values)
    return list(found)


def _measured(row: RowResults, seeds: Sequence[int], mode: Mode, name: str) -> Cell:
    """A measure over seeds; under one seed, or for the base, over pictures where it has a value for each."""
    found = [row.records[seed].measures.get(mode, {}).get(name) for seed in seeds]
    values = [each for each in found if each is not None]
    if len(values) < len(found):
        return NONE
    means = [each["mean"] for each in values]
    if len(set(means)) > 1:
        return over_seeds(means)
    one = values[0]
    if one["low"] is None or one["low"] == one["high"]:
        return f"{one['mean']:.6g}"
    return Estimate(one["mean"], one["low"], one["high"], one["n"])


def _validation(row: RowResults, seeds: Sequence[int], mode: Mode) -> Cell:
    means = []
    for seed in seeds:
        values = _last(row, [seed]).get("validation", {}).get(mode)
        clients = row.records[seed].clients
        if not values:
            return NONE
        means.append(fmean(v for v, each in zip(values, clients, strict=True) if not each["new"]))
    loss = over_seeds(means)
    return f"{loss.mean:.{_DIGITS}f}" if loss.low == loss.high else loss


def _last(row: RowResults, seeds: Sequence[int]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = row.records[seeds[0]].evaluations[-1]
    return found


def has_noise(results: PartitionResults, seeds: Sequence[int]) -> bool:
    """Return whether a row of the tables of these seeds has noise of differential privacy."""
    return any(_epsilon(row, seeds) != NONE for row in results.rows if row.complete(seeds))


def gallery_table(
    results: PartitionResults, seeds: Sequence[int], mode: Mode, reference: str
) -> Table | None:
    """Return the distances of every row's gallery to real images; None if the base has none.

    The first row compares real images with real ones, with the standard deviation over random halves.
    """
    base = next(iter(results.row("base").records.values()), None)
    if base is None or base.status != "finished" or "gallery" not in base.evaluations[-1]:
        return None
    compared_with = _distances(results.row(reference), seeds, mode)
    real = base.evaluations[-1]["gallery"]["real"]
    cells: list[Cell] = []
    for name in ("frechet", "kernel"):
        cells += [
            f"{real[name]['mean']:.{_GALLERY_DIGITS}f} (sd {real[name]['sd']:.{_GALLERY_DIGITS}f})",
            NONE,
        ]
    rows: list[tuple[Cell, ...]] = [("real pictures", *cells)]
    for row in results.rows:
        found = _distances(row, seeds, mode)
        if found is None:
            continue
        cells = []
        for name in ("frechet", "kernel"):
            values = found[name]
            lone = len(values) < 2 or len(set(values)) == 1
            cells.append(f"{values[0]:.{_GALLERY_DIGITS}f}" if lone else over_seeds(values))
            if compared_with is None or row.name == reference or len(seeds) < 2:
                cells.append(NONE)
            else:
                other = compared_with[name]
                cells.append(over_seeds([a - b for a, b in zip(values, other, strict=True)]))
        rows.append((row.name, *cells))
    columns = (
        Column("row"),
        Column("Frechet distance", "right", _GALLERY_DIGITS),
        Column(f"difference to {reference}", "right", _GALLERY_DIGITS),
        Column("KID", "right", _GALLERY_DIGITS),
        Column(f"difference to {reference}, KID", "right", _GALLERY_DIGITS),
    )
    return Table(columns, tuple(rows))


def _distances(row: RowResults, seeds: Sequence[int], mode: Mode) -> dict[str, list[float]] | None:
    """Both distances by seed, the same for every seed of the base; None unless all exist."""
    if not row.complete(seeds):
        return None
    drawn = [row.records[seed].evaluations[-1].get("gallery") for seed in seeds]
    found = [each[mode] for each in drawn if each is not None and each[mode] is not None]
    if len(found) < len(seeds):
        return None
    return {name: [each[name] for each in found] for name in ("frechet", "kernel")}


def tuning_table(study: StudyConfig, results: PartitionResults) -> Table | None:
    """Return the values that every row was tuned over and to; None without tuning.

    A chosen value that is the largest or smallest of those tried has a mark: the optimum may lie beyond.
    """
    if study.tuning is None:
        return None
    rows: list[tuple[Cell, ...]] = []
    own = {strategy.row: strategy for strategy in study.strategies}
    for row in results.rows:
        choice = row.tuning
        if choice is None or choice.waiting:
            continue
        strategy = own.get(row.name)
        as_row = strategy.tuned_as if strategy is not None else None
        rounds = strategy.tuning_rounds if strategy is not None else None
        tried = "; ".join(
            f"{key.partition('.')[2]} "
            + ", ".join(
                str(value) for value in sorted({point[key] for point, _ in choice.trials}, key=_by_value)
            )
            for key in sorted(choice.best)
        )
        chosen = ", ".join(
            f"{key.partition('.')[2]} = {value}{EDGE_MARK if key in choice.edges else ''}"
            for key, value in sorted(choice.best.items())
        )
        lowest = min(loss for _, loss in choice.trials)
        rows.append(
            (
                row.name,
                f"as {as_row}" if as_row else str(len(choice.trials)),
                str(rounds or study.tuning.rounds or study.rounds.count),
                tried,
                chosen,
                f"{lowest:.{_DIGITS}f}" if math.isfinite(lowest) else NONE,
            )
        )
    columns = (
        Column("row"),
        Column("trials", "right"),
        Column("rounds", "right"),
        Column("tried"),
        Column("chosen"),
        Column("validation loss", "right"),
    )
    return Table(columns, tuple(rows)) if rows else None


def _by_value(value: Value) -> tuple[int, float, str]:
    """Sort key: numbers by size, then strings."""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, value)


def clients_table(results: PartitionResults) -> Table | None:
    """Return the description of the clients; None before the first run."""
    record = next(
        (r for row in results.rows if not row.baseline for r in row.records.values() if r.clients), None
    )
    if record is None:
        return None
    rows = [
        (
            str(client["client"]),
            "new" if client["new"] else "trains",
            str(client["images"]),
            str(client.get("steps", NONE)),
            ", ".join(f"{name} {count}" for name, count in client["composition"].items()) or NONE,
        )
        for client in record.clients
    ]
    columns = (
        Column("client", "right"),
        Column("role"),
        Column("images", "right"),
        Column("local steps", "right"),
        Column("holds"),
    )
    return Table(columns, tuple(rows))


def personal_table(results: PartitionResults) -> Table | None:
    """Return the personal stage, which is the same for every row; None if it was not trained separately."""
    if not results.personal:
        return None
    rows = []
    for name, mode in (("base", "personal base"), ("trained", "personal")):
        means = [fmean(record.losses(mode).values()) for record in results.personal.values()]
        rows.append((name, over_seeds(means)))
    return Table((Column("personal stage"), Column("loss", "right", _DIGITS)), tuple(rows))


def _loss_cells(row: RowResults, seeds: Sequence[int], mode: Mode) -> tuple[Cell, str]:
    """The loss with its interval over seeds, and the mean over seeds of the worst tenth of the clients."""
    scores = row.scores(seeds, mode)
    if not scores or not row.complete(seeds):
        return "n/a", NONE
    values = list(seed_losses(row, seeds, mode).values())
    worst = [worst_tenth_mean([score.value for score in scores if score.seed == seed]) for seed in seeds]
    loss = over_seeds(values)
    return (f"{loss.mean:.{_DIGITS}f}" if loss.low == loss.high else loss), f"{fmean(worst):.{_DIGITS}f}"


def _mean_of_new(row: RowResults, seeds: Sequence[int], mode: Mode) -> str:
    scores = row.scores(seeds, mode, new=True)
    return f"{fmean(score.value for score in scores):.{_DIGITS}f}" if scores else NONE


def _megabytes(row: RowResults, seeds: Sequence[int], direction: str) -> str:
    sent = [row.records[seed].bytes for seed in seeds]
    counted = [each[direction] for each in sent if each is not None]
    return f"{fmean(counted) / 1e6:.2f}" if len(counted) == len(sent) else NONE


def _seconds(row: RowResults, seeds: Sequence[int]) -> str:
    taken = [row.records[seed].seconds for seed in seeds]
    known = [each for each in taken if each is not None]
    return f"{fmean(known):.0f}" if len(known) == len(taken) else NONE


def _epsilon(row: RowResults, seeds: Sequence[int]) -> str:
    """The largest epsilon over the seeds; "none" if no epsilon holds; a dash without noise."""
    records = [row.records[seed] for seed in seeds]
    if not any("dp" in record.run["federation"]["rounds"]["options"] for record in records):
        return NONE
    # records from before the accountant have none: their noise followed from the run's seed
    spent = [record.dp for record in records]
    if any(dp is None or dp["epsilon"] is None for dp in spent):
        return "none"
    worst = max((dp for dp in spent if dp is not None), key=lambda dp: float(dp["epsilon"]))
    return f"{shown(worst['epsilon'])} (delta {worst['delta']:g})"
