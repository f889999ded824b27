"""The figures of docs/model.md, and those of few steps in docs/models.md."""

from statistics import fmean

from experiments.pages.markdown import markdown, share
from experiments.pages.records import estimate, one_of, record
from experiments.pages.registry import figure, table
from experiments.pretrain.negatives import TEST_ONLY, TRAINED
from fedaigc.errors import UserError

_JUDGE = "fedaigc/assets/judge.json"


@figure
def judged(what: str) -> list[float]:
    """The judge's accuracies of object, place and style, on "clean" or on "rebuilt" scenes."""
    return [record(_JUDGE)[f"{what} {which} accuracy"] for which in ("object", "place", "style")]


@figure
def rejected(*kinds: str) -> list[float]:
    """Share of pictures of each kind that the judge rejects."""
    known = TRAINED | TEST_ONLY
    for kind in kinds:
        if kind not in known:
            raise UserError(f"{kind!r} is not a kind of negative: expected one of {', '.join(known)}")
    return [record(_JUDGE)[f"rejected: {kind}"] for kind in kinds]


@figure
def kinds(which: str) -> int:
    """Number of kinds of negatives: "trained", "test" or "all"."""
    return len(_kinds(which))


@figure
def rejected_mean(which: str) -> float:
    """Mean share of rejected pictures over the kinds "trained", "test" or "all"."""
    return fmean(rejected(*_kinds(which)))


def _kinds(which: str) -> list[str]:
    groups = {"trained": [*TRAINED], "test": [*TEST_ONLY], "all": [*TRAINED, *TEST_ONLY]}
    if which not in groups:
        raise UserError(f"expected trained, test or all, got {which!r}")
    return groups[which]


@table
def few_steps(*models: str) -> str:
    """The target's object and place at few steps, alone and shared, a column for each model, and what it costs."""
    found = {model: record(f"few_steps/{model}")["rows"] for model in models}
    lines = []
    for row in found[models[0]]:
        same = {model: one_of(rows, f"N={row['N']},K={row['K']}") for model, rows in found.items()}
        lines.append(
            [
                str(row["N"]),
                str(row["K"]),
                *(
                    share(estimate(each["judge"][which]))
                    for each in same.values()
                    for which in ("object", "place")
                ),
                f"{row['steps saved']} of {2 * row['N']}",
                " / ".join(f"{each['joules saved']:.0f}" for each in same.values()),
                " / ".join(f"{each['bits sent']:,}" for each in same.values()),
            ]
        )
    names = [f"{model}: {which}" for model in models for which in ("object", "place")]
    return markdown(["N", "K", *names, "steps saved", "joules saved", "bits sent"], lines)
