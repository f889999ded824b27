"""The figures of docs/sharing.md on popular streams."""

from typing import Any

from experiments.pages.markdown import markdown, share
from experiments.pages.records import record
from experiments.pages.registry import figure, table
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate

ROWS = {
    "alone": "alone",
    "concepts, K = 3": "concepts, K = 3",
    "nodes, K = 3, any distance": "nodes of an atlas, K = 3, whatever the distance",
    "ladder, public caption": "ladder, public caption, risk .3",
    "ladder, mean": "ladder, mean of three and more, risk .3",
    "ladder, mean, risk .2": "ladder, mean of three and more, risk .2",
    "equality test, ladder, mean": "equality test, then ladder and mean, risk .25",
    "equality test, ladder, mean, risk .2": "equality test, then ladder and mean, risk .2",
    "ladder, mean, m = 1": "ladder and mean, risk .3, with single captions as nodes",
    "equal prompts": "equal prompts share all steps but one",
    "oracle, in the groups of the mean": "oracle: the last hand-off at which the judge misses nothing",
}

GROUPS = {
    "nodes": "nodes",
    "joined": "nodes, equal prompts joined",
    "informed": "informed server",
    "informed, joined": "informed server, equal prompts joined",
}
CHOICES = {
    "risk 0.15": "the device: risk .15",
    "risk 0.2": "the device: risk .2",
    "risk 0.2, to step 4": "the device: risk .2, not beyond K = 4",
    "risk 0.3": "the device: risk .3",
    "risk 0.3, to step 4": "the device: risk .3, not beyond K = 4",
    "expected risk 0.1": "expected risk .1",
    "expected risk 0.2": "expected risk .2",
    "own damage": "own damage",
    "judge": "the judge",
}


def _gap(choice: str) -> dict[str, Any]:
    found = record("streams/gap")["summary"]
    if choice not in found:
        raise UserError(f"no choice {choice!r} in the record: expected one of {', '.join(found)}")
    row: dict[str, Any] = found[choice]
    return row


@figure
def gap_saved(choice: str) -> float:
    """Share of all denoising steps that groups and a choice of hand-offs save."""
    return float(_gap(choice)["steps saved"]["mean"])


@figure
def gap_lost(choice: str) -> Estimate:
    """Share of pictures with object and place, minus that of pictures drawn alone from the same noise."""
    return Estimate(**_gap(choice)["minus alone"])


@figure
def gap_streams(choice: str) -> int:
    """Number of streams of groups and a choice of hand-offs."""
    return len(_gap(choice)["streams"])


@figure
def gap_equal() -> float:
    """Share of all denoising steps that equal prompts alone save, where they share all but the last."""
    return float(record("streams/gap")["equal prompts"]["steps saved"])


@table
def gap() -> str:
    """Steps saved and what is lost, by groups and by the choice of hand-offs."""
    rows = []
    for groups, told in GROUPS.items():
        for choice, by in CHOICES.items():
            row = record("streams/gap")["summary"].get(f"{groups}, {choice}")
            if row is None:
                continue
            lost = row.get("minus alone")
            rows.append(
                [
                    told,
                    by,
                    share(row["steps saved"]["mean"]),
                    ", ".join(share(value) for value in row["steps saved"]["by stream"]),
                    "" if lost is None else share(Estimate(**lost), 3),
                    "" if lost is None else ("yes" if row["not inferior"] else "no"),
                ]
            )
    header = ["groups", "hand-off by", "steps saved", "by stream", "minus alone", "not inferior"]
    return markdown(header, rows)


def _row(policy: str) -> dict[str, Any]:
    found = record("streams/popular")["summary"]
    if policy not in found:
        raise UserError(f"no policy {policy!r} in the record: expected one of {', '.join(found)}")
    row: dict[str, Any] = found[policy]
    return row


@figure
def stream_saved(policy: str) -> float:
    """Share of all denoising steps that a policy saves."""
    return float(_row(policy)["steps saved"]["mean"])


@figure
def stream_lost(policy: str, what: str = "both") -> Estimate:
    """Share of pictures with object and place, minus that of pictures drawn alone."""
    return Estimate(**_row(policy)[what]["minus alone"])


@figure
def stream_count(what: str) -> int:
    """Number of streams, of prompts in all, or of captions."""
    found = record("streams/popular")
    streams = found["streams"]
    prompts = sum(len(stream["alone"]["K"]) for stream in streams.values())
    return {"streams": len(streams), "prompts": prompts, "captions": found["captions"]}[what]


@figure
def stream_other_handoffs() -> list[int]:
    """Fewest and most prompts of a stream with other hand-offs on the machine that drew the oracle."""
    counts = record("streams/popular")["oracle"]["other hand-offs"].values()
    return [min(counts), max(counts)]


@table
def streams() -> str:
    """Steps saved and what is lost, by policy."""
    rows = []
    for policy, name in ROWS.items():
        row = _row(policy)
        saved = row["steps saved"]
        rows.append(
            [
                name,
                share(saved["mean"]),
                ", ".join(share(value) for value in saved["by stream"]),
                share(row["share in groups"]),
                share(row["both"]["kept"]),
                # the margin is decided by thousandths
                "" if policy == "alone" else share(Estimate(**row["both"]["minus alone"]), 3),
                "" if policy == "alone" else ("yes" if row["not inferior"] else "no"),
            ]
        )
    header = [
        "shared steps",
        "steps saved",
        "by stream",
        "in groups",
        "both seen",
        "minus alone",
        "not inferior",
    ]
    return markdown(header, rows)
