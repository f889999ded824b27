"""The figures of docs/model.md."""

from statistics import fmean

from experiments.pages.records import record
from experiments.pages.registry import figure
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
