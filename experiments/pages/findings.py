"""The figures of docs/findings.md."""

from itertools import pairwise

from experiments.pages.markdown import markdown, share
from experiments.pages.records import estimate, one_of, record
from experiments.pages.registry import claim, figure, table
from fedaigc.metrics.intervals import Estimate

_STEPS = (0, 3, 5, 7, 9)
_PROMPTS = {"own": "own", "other": "another member's", "group": "**group**", "empty": "empty"}


def _shared(pairs: str, prompt: str, steps: int) -> Estimate:
    rows = record("shared_prompts")["rows"]
    return estimate(one_of(rows, f"pairs={pairs},shared prompt={prompt},K={steps}")["both"])


@figure
def shared(pairs: str, prompt: str, steps: int) -> Estimate:
    """Share of correct targets after K steps on a prompt (own, other, group, empty), near or far pairs."""
    return _shared(pairs, prompt, steps)


@figure
def ahead(pairs: str, prompt: str, other: str, steps: int) -> float:
    """How far the share on one prompt is above that on another after K steps."""
    return _shared(pairs, prompt, steps).mean - _shared(pairs, other, steps).mean


@table
def shared_prompts(pairs: str) -> str:
    """Share of correct targets, one row per prompt and one column per K."""
    rows = [[name, *(share(_shared(pairs, prompt, k)) for k in _STEPS)] for prompt, name in _PROMPTS.items()]
    return markdown(["shared prompt", *(f"K = {k}" for k in _STEPS)], rows)


def _style(style: str, what: str, steps: int) -> Estimate:
    return estimate(one_of(record(f"style_{style}")["rows"], f"K={steps}")[what])


@figure
def style(style: str, what: str, steps: int) -> float:
    """Share of pictures of a client's style, e.g. `style blob "object accuracy before" 0`."""
    return _style(style, what, steps).mean


@claim
def style_falls(*styles: str) -> bool:
    """Whether the share of a style, after training, falls with every K."""
    found = [[_style(style, "style accuracy after", k).mean for k in _STEPS] for style in styles]
    return all(before > after for means in found for before, after in pairwise(means))


@table
def styles() -> str:
    """Share of pictures that the judge assigns to a client's style, before and after training."""
    rows = [
        [f"{style}, {when}", *(share(_style(style, f"style accuracy {when}", k)) for k in _STEPS)]
        for style in ("blob", "openmoji")
        for when in ("before", "after")
    ]
    return markdown(["style", *(f"K = {k}" for k in _STEPS)], rows)


@table
def collaboration() -> str:
    """Time with shared steps over time alone, and the ideal ratio."""
    found = record("benchmark_collaborative")
    rows = [
        [
            way,
            share(found["ratio"][way], 3),
            share(found["ideal"][way], 3),
            f"{found['over ideal'][way]:.1%}".replace("%", " %"),
        ]
        for way in ("one by one", "batched")
    ]
    return markdown(["", "measured / solo", "ideal from t1, tU, f of the same run", "over the ideal"], rows)


@figure
def style_left(style: str, steps: int) -> float:
    """Share of a client's style that is left after K shared steps, relative to training without shared steps."""
    return _style(style, "style accuracy after", steps).mean / _style(style, "style accuracy after", 0).mean
