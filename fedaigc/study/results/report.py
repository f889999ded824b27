"""Tables, plots and report.md of a study, from its records."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedaigc.extras import MissingExtra
from fedaigc.metrics.distribution import MIN_IMAGES
from fedaigc.study.design.config import BASELINES, StudyConfig
from fedaigc.study.results import comparison_tables as result_tables
from fedaigc.study.results.breakdown import breakdown_table
from fedaigc.study.results.curves import curves_by_bytes, curves_by_round
from fedaigc.study.results.plots import plot_differences, plot_loss_by_bytes, plot_loss_by_round
from fedaigc.study.results.summary import MODES, Mode, PartitionResults
from fedaigc.study.results.table_files import Table

_MODE_TEXT = {
    "collaborative": "Collaborative: the edge runs the global shared stage",
    "device": "All on the device: each device runs its own shared stage, with what it remembers",
}
_ABOUT = """\
Loss: denoising loss of the shared stage, the mean squared error of the target on fixed (image, timestep,
noise) triples of every client, on pictures of its own distribution that no home holds; smaller is better.
Clients count equally. The triples are the same for all rows, seeds and rounds.

Brackets are 95 % intervals. The loss and the difference have t intervals over seeds, of one mean over clients
a seed; under one seed all rows have the same data, initial weights and draws of clients, so differences are
paired. "Over clients too" is the same difference with a bootstrap that draws seeds and clients: it speaks
about other clients as well, and with few seeds it is too narrow. p is of the paired t test, corrected by Holm
for all strategies of the study, also in a table of more seeds that only some of them have. A p above 0.05 is
no evidence that two rows are equal: read the interval.

Worst tenth: mean over the worst tenth of the clients that train, then over seeds. New clients never train;
they run what they are sent. Bytes are those of all messages of a run, as serialized, all clients together.
Seconds are of the rounds, on one thread.
"""

_ABOUT_GALLERIES = """\
Galleries: {gallery} pictures after the last round, as many for each client that trains, of captions of its
own distribution, in {steps} steps under guidance {guidance:g}, against as many real pictures. Features are
the judge's (64 values), so these numbers compare within this project only: they are no FID. The first row is
real pictures against real ones, which no generator can be expected to beat. The Frechet distance is biased
upwards by the number of pictures; KID is unbiased and may fall below zero. Brackets are t intervals over
seeds; nothing here is corrected for several rows.{few}
"""

_ABOUT_EPSILON = """\
Epsilon: of the noise of one run over all its rounds, for one client's updates against none in their places,
at the delta beside it; the largest over seeds. Twice the effect, any other updates in their places, is in the
records. No amplification by sampling is counted, and neither is tuning, which saw the same clients. "none":
no epsilon holds, e.g. as the noise follows from a seed (`insecure_seed`), or as the clients clip.
"""

_ABOUT_MEASURES = """\
{names}: of {gallery} pictures, drawn after the last round in {steps} steps under guidance {guidance:g}. Each client
that trains has the same number of them, or fewer if it has fewer test pictures. Captions and noise are the same for all
rows and seeds. Distances are to as many real test pictures. FID is biased upwards by the number of pictures, so it
compares within this table only; KID is unbiased and may fall below zero. Brackets are 95 % intervals over seeds. With
one seed, and for the base, they are over pictures, resampled by caption, if a measure has a value for each picture.
None is corrected for several rows.{few}
"""

_SHORT_TRIALS = """\
Tuned over fewer rounds than the {rounds} that are reported, which can choose values that win early: {rows}.
"""


def write_report(study: StudyConfig, results: Sequence[PartitionResults]) -> Path:
    """Write the report, tables and plots below the study's output, and return the path of report.md."""
    parts = [f"# {study.name}\n\n{_ABOUT}"]
    for result in results:
        parts += _partition_part(study, result, many=len(results) > 1)
    path = study.output / "report.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _partition_part(study: StudyConfig, result: PartitionResults, *, many: bool) -> list[str]:
    parts = [f"## Partition {result.partition}\n"] if many else []

    def table(name: str, found: Table | None, title: str) -> None:
        if found is not None:
            for suffix in (".md", ".csv", ".tex"):
                found.write(study.output / "tables" / f"{result.partition}-{name}{suffix}")
            parts.append(f"### {title}\n\n{found.to_markdown()}")

    seeds = study.seeds
    gate, verdict = result_tables.gate(result, _gate_seeds(study, result))
    table("gate", gate, "The gate")
    parts.append(verdict + "\n")
    for chosen in result.seed_sets(study):
        many_seeds = f", seeds {', '.join(map(str, chosen))}"
        suffix = "" if chosen == seeds else f"-{len(chosen)}seeds"
        for mode in MODES:
            found = result_tables.mode_table(result, chosen, mode, study.reference)
            table(f"{mode}{suffix}", found, f"{_MODE_TEXT[mode]}{many_seeds}")
            if result_tables.has_noise(result, chosen):
                parts.append(_ABOUT_EPSILON)
            parts += _about_measures(study, result_tables.measure_names(result, chosen))
            split = breakdown_table(result, chosen, mode, study.reference)
            title = f"Differences to {study.reference}, {mode}, by who is counted{many_seeds}"
            table(f"{mode}-breakdown{suffix}", split, title)
            parts += _plots(study, result, chosen, mode, suffix)
            drawn = result_tables.gallery_table(result, chosen, mode, study.reference)
            if drawn is not None:
                table(f"{mode}-galleries{suffix}", drawn, f"Galleries, {mode}{many_seeds}")
                parts.append(_about_galleries(study))
    table("personal", result_tables.personal_table(result), "The personal stage, the same for all rows")
    tuned = result_tables.tuning_table(study, result)
    table("tuning", tuned, "Tuning, on validation pictures and on other seeds")
    short = study.tuned_shorter
    if short and tuned is not None:
        parts.append(_SHORT_TRIALS.format(rows=", ".join(short), rounds=study.rounds.count))
    table("clients", result_tables.clients_table(result), "The clients")
    if result.notes:
        parts.append("### Notes\n\n" + "".join(f"- {note}\n" for note in result.notes))
    return parts


def _about_measures(study: StudyConfig, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    told = study.evaluation
    texts = {"gallery": told.gallery, "steps": told.gallery_steps, "guidance": told.gallery_guidance}
    return [_ABOUT_MEASURES.format(names=", ".join(names), few=_few(told.gallery), **texts)]


def _few(gallery: int) -> str:
    return " The pictures are too few for distances to be relied on." if gallery < MIN_IMAGES else ""


def _about_galleries(study: StudyConfig) -> str:
    told = study.evaluation
    few = _few(told.gallery)
    return _ABOUT_GALLERIES.format(
        gallery=told.gallery, steps=told.gallery_steps, guidance=told.gallery_guidance, few=few
    )


def _gate_seeds(study: StudyConfig, result: PartitionResults) -> tuple[int, ...]:
    """All seeds that the baselines should have, once all are complete; until then, the study's seeds."""
    own = study.baselines.seeds or study.seeds
    whole = all(result.row(name).complete(own) for name in BASELINES)
    return own if whole else study.seeds


def _plots(
    study: StudyConfig, result: PartitionResults, seeds: Sequence[int], mode: Mode, suffix: str
) -> list[str]:
    """Draw the available plots, and return the lines of the report that show them."""
    by_round = curves_by_round(result, seeds, mode)
    by_bytes = curves_by_bytes(result, seeds, mode)
    comparisons = result_tables.compared(result, seeds, mode, study.reference)
    differences = {name: found.over_seeds for name, found in comparisons.items()}
    drawn: list[tuple[str, str, Callable[[Path], None]]] = []
    if by_round:
        drawn.append(("rounds", "Loss against rounds", lambda path: plot_loss_by_round(path, by_round)))
    if by_bytes:
        drawn.append(("bytes", "Loss against bytes", lambda path: plot_loss_by_bytes(path, by_bytes)))
    if differences:
        drawn.append(
            (
                "differences",
                f"Differences to {study.reference}",
                lambda path: plot_differences(path, differences, study.reference),
            )
        )
    parts = []
    for name, title, draw in drawn:
        path = study.output / "plots" / f"{result.partition}-{mode}-{name}{suffix}.png"
        try:
            draw(path)
        except MissingExtra as error:
            return [f"Plots: {error}\n"]
        parts.append(f"![{title}, {mode}](plots/{path.name})\n")
    return parts
