"""The figures of docs/deployment.md."""

from experiments.pages.markdown import markdown
from experiments.pages.records import record
from experiments.pages.registry import figure, table

_RUNS = {
    "in process": "one process, no messages",
    "service": "prompts queued while a run serves, devices warm",
    "warm run": "a run for the prompts, devices warm",
    "cold run": "the same, from the start of the devices",
}
_PARTS = {
    "signatures": "signatures",
    "shared state": "shared state to the devices",
    "groups and plan": "groups and plan",
    "shared steps": "shared steps",
    "own steps": "the devices' own steps",
    "all else": "all else",
    "whole": "whole",
}


@table
def latency() -> str:
    """Seconds of each part of a generation; a dash if the remaining time of a part is below zero."""
    seconds = record("latency")["seconds"]
    rows = [[name, *(_seconds(seconds[run][part]) for run in _RUNS)] for part, name in _PARTS.items()]
    return markdown(["", *_RUNS.values()], rows)


def _seconds(text: str) -> str:
    mean, half = (float(part) for part in text.split("±"))
    if mean < 0:
        return "–"
    return f"{mean:.2f}" if half == 0 else text


@figure
def computing(run: str) -> float:
    """Share of a generation's seconds spent on computing, from its steps in one process."""
    seconds = record("latency")["seconds"]
    steps = sum(float(seconds["in process"][part].split("±")[0]) for part in ("shared steps", "own steps"))
    return steps / float(seconds[run]["whole"].split("±")[0])


@figure
def taken_away(name: str) -> int:
    """Number of times that a device was taken away in a soak test."""
    return sum(record(name)["devices taken away"].values())


@figure
def untold(name: str) -> int:
    """Number of answered prompts that were never reported to the server."""
    answers = record(name)["answers"]
    return answers["finished"] - answers["told once"] - answers["told more often"]


@figure
def norms_of_adapters() -> tuple[float, float]:
    """Smallest and largest norm of an honest update with adapters."""
    norms = record("privacy/update_norms")["norms"]
    values = [norm for rule, found in norms.items() if rule != "full_weights" for norm in found]
    return min(values), max(values)
