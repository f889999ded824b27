"""Figures of docs/strategies.md besides its studies' tables: claims, the rest of a gain, bytes."""

from collections.abc import Sequence

from experiments.pages.markdown import markdown
from experiments.pages.records import record
from experiments.pages.registry import claim, figure, table
from experiments.pages.studies import Recorded, comparison, diff, not_run, recorded
from fedaigc.errors import UserError
from fedaigc.strategy.accountant import epsilon as epsilon_of
from fedaigc.strategy.accountant import shown as shown_epsilon
from fedaigc.study.results.breakdown import seed_differences
from fedaigc.study.results.comparison_tables import over_seeds, seed_losses
from fedaigc.study.results.statistics import paired_t_test
from fedaigc.study.results.table_files import NONE, decimals, shown

UNIFORM = "fedit, uniform"
# rules that do not weight clients by their pictures, which alone may explain their gains
ARGUED = ("fednova", "fedtrimmedavg", "hetlora", "qfedavg", "scaffold")
_WEIGHTINGS = ("clients alike", "by pictures")
_DIGITS = 4


@table
def against_uniform(*rules: str) -> str:
    """The rest of a rule's difference when FedIT, too, counts clients alike: five seeds, at the edge.

    Row minus FedIT, and row minus FedIT with the uniform mean, in the mean over clients alike and in that by
    pictures: t intervals over seeds and p of the paired t test, not corrected.
    """
    found = recorded("strategies")
    seeds = max(found.results.seed_sets(found.study), key=len)
    names = [UNIFORM, *(rules or ARGUED)]
    rows = []
    if found.row(UNIFORM).complete(seeds) and found.row(found.reference).complete(seeds):
        for name in names:
            if found.row(name).complete(seeds):
                rows += [[name, who, *_against(found, name, seeds, who)] for who in _WEIGHTINGS]
    header = ["row", "mean over clients", f"difference to {found.reference}", "p"]
    table_ = markdown([*header, f"difference to {UNIFORM}", "p"], rows) if rows else ""
    return table_ + not_run(found, seeds, [found.reference, *names])


def _against(found: Recorded, name: str, seeds: Sequence[int], weighting: str) -> list[str]:
    cells = []
    for other in (found.reference, UNIFORM):
        gaps = seed_differences(found.row(name), found.row(other), seeds, "collaborative", weighting)
        if gaps is None or name == other:
            cells += [NONE, NONE]
        else:
            cells += [shown(over_seeds(gaps), _DIGITS), decimals(paired_t_test(gaps), 3)]
    return cells


@claim
def below_reference(study: str, *rows: str) -> bool:
    """Whether each row ends below the reference under each of its seeds, at the edge."""
    found = recorded(study)
    for name in rows:
        row = found.row(name)
        both = [found.whole(each, row.expected) for each in (name, found.reference)]
        one, other = (seed_losses(each, row.expected, "collaborative") for each in both)
        if any(one[seed] >= other[seed] for seed in row.expected):
            return False
    return True


@claim
def crosses_zero(study: str, seeds: int, over: str, *rows: str) -> bool:
    """Whether the interval of each row's difference at the edge, over "seeds" or "clients", contains zero."""
    found = [comparison(study, name, "edge", seeds) for name in rows]
    intervals = [each.over_seeds if over == "seeds" else each.over_clients for each in found]
    return all(each.low <= 0 <= each.high for each in intervals)


@figure
def furthest(study: str, *rows: str) -> float:
    """Largest distance from zero of the intervals of these rows' differences to the reference, at the edge."""
    return max(abs(bound) for name in rows for each in [diff(study, name)] for bound in (each.low, each.high))


@figure
def half_widths(study: str, *rows: str) -> tuple[float, float]:
    """Half widths of the narrowest and the widest of these rows' intervals, at the edge."""
    halves = [(each.high - each.low) / 2 for each in (diff(study, name) for name in rows)]
    return min(halves), max(halves)


@figure
def gains(study: str, mode: str, *rows: str) -> tuple[float, float]:
    """Smallest and largest amount by which the losses of these rows are below the reference."""
    found = [-diff(study, name, mode).mean for name in rows]
    return min(found), max(found)


@figure
def gaps(study: str, mode: str, *rows: str) -> tuple[float, float]:
    """Smallest and largest amount by which the losses of these rows are above the reference."""
    low, high = gains(study, mode, *rows)
    return -high, -low


@claim
def on_edge(study: str, *rows: str) -> bool:
    """Whether each row was tuned to a value that is the largest or the smallest one tried."""
    tuned = [recorded(study).row(name).tuning for name in rows]
    if any(choice is None or choice.waiting for choice in tuned):
        raise UserError(f"trials of {', '.join(rows)} are missing")
    return all(choice is not None and choice.edges for choice in tuned)


@table
def noise(rounds: int, delta: float, *multipliers: str) -> str:
    """Epsilon of the noise of differential privacy over a number of rounds, in both adjacencies."""
    rows = []
    for text in multipliers:
        z = float(text)
        found = (epsilon_of([factor / z] * rounds, delta) for factor in (1, 2))
        rows.append([f"z = {text}", *(shown_epsilon(round(each, 1)) for each in found)])
    return markdown(
        [f"{_word(rounds)} rounds, delta {delta:g}".replace("e-0", "e-"), "epsilon", "epsilon_replace_one"],
        rows,
    )


def _word(number: int) -> str:
    return {5: "five", 10: "ten"}.get(number, str(number))


@figure
def epsilon(rounds: int, delta: float, multiplier: float) -> float:
    """Epsilon, zero-out, of noise of this multiplier over a number of rounds."""
    return epsilon_of([1 / multiplier] * rounds, delta)


@table
def update_bytes() -> str:
    """Bytes of one client's update for the shapes of Stable Diffusion v1-4."""
    rows = []
    for name, update in record("bytes_stable_diffusion_v1_4")["updates"].items():
        sizes = update["bytes"]
        if sizes["float16"] != sizes["bfloat16"]:
            raise UserError("float16 and bfloat16 differ in bytes: give them columns of their own")
        digits = 0 if update["values"] >= 100_000_000 else 1
        cells = [f"{sizes[form] / 1e6:,.{digits}f} MB" for form in ("float32", "float16", "int8")]
        rows.append([name, f"{update['values'] / 1e6:.1f} M", *cells])
    return markdown(["update", "values", "float32", "float16, bfloat16", "int8"], rows)
