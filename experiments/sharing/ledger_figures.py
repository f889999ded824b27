"""The figures of docs/sharing.md on nodes with noise and on repetition."""

from typing import Any

from experiments.pages.markdown import markdown, share
from experiments.pages.records import record
from experiments.pages.registry import figure, table
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate


def _noise_row(mechanism: str, epsilon: float | None) -> dict[str, Any]:
    for row in record("sharing/local_privacy")["rows"]:
        if (row["mechanism"], row.get("epsilon")) == (mechanism, epsilon):
            found: dict[str, Any] = row
            return found
    raise UserError(f"no row {mechanism}, epsilon {epsilon} in the record")


def _repetition_row(space: str, epsilon: float | None) -> dict[str, Any]:
    for row in record("sharing/repetition")["rows"]:
        if (row["space"], row["epsilon"]) == (space, epsilon):
            found: dict[str, Any] = row
            return found
    raise UserError(f"no row {space}, epsilon {epsilon} in the record")


def _epsilon(text: str) -> float | None:
    return None if text == "none" else float(text)


@figure
def noisy_node(mechanism: str, epsilon: str, what: str) -> Any:
    """A figure of a mechanism ("none", "randomised response", "exponential") at an epsilon ("none" without noise)."""
    found = _noise_row(mechanism, _epsilon(epsilon))[what]
    return Estimate(**found) if isinstance(found, dict) else found


@figure
def learned(space: str, epsilon: str, part: str, count: int, what: str = "guess") -> Estimate:
    """What an observer learns of an object or place from disclosures: "guess" right, or "posterior" of the truth."""
    return Estimate(**_repetition_row(space, _epsilon(epsilon))[part][str(count)][what])


@figure
def prompts_a_day(space: str, epsilon: str) -> int:
    """Prompts that the default budget of an agent allows within a day."""
    return int(_repetition_row(space, _epsilon(epsilon))["prompts a day"])


@table
def noisy_nodes() -> str:
    """Both mechanisms by epsilon: how often a node is right, and how many devices come into a right group."""
    none = _noise_row("none", None)
    rows = [
        [
            "none",
            str(none["nodes"]),
            "1",
            share(none["right"]),
            share(Estimate(**none["grouped right"])),
            "",
            "",
        ]
    ]
    epsilons = sorted({row["epsilon"] for row in record("sharing/local_privacy")["rows"] if "epsilon" in row})
    for epsilon in reversed(epsilons):
        response, other = (_noise_row(name, epsilon) for name in ("randomised response", "exponential"))
        rows.append(
            [
                f"{epsilon:g}",
                str(response["nodes"]),
                share(response["own"]),
                share(response["right"]),
                share(Estimate(**response["grouped right"])),
                share(other["right"]),
                share(Estimate(**other["grouped right"])),
            ]
        )
    header = ["epsilon", "nodes", "own node said", "right node", "in a right group"]
    return markdown([*header, "exponential: right node", "exponential: in a right group"], rows)


@table
def repetition() -> str:
    """How often an observer guesses a person's object or place, by what is disclosed and how often."""
    rows = []
    for row in record("sharing/repetition")["rows"]:
        told = "concepts, `kind`" if row["space"] == "concepts" else "node"
        told += "" if row["epsilon"] is None else f", epsilon {row['epsilon']:g}"
        cells = [
            share(Estimate(**row[part][count]["guess"]))
            for part in ("object", "place")
            for count in row["object"]
        ]
        rows.append([told, f"{row['bits']:.1f}", str(row["prompts a day"]), *cells])
    header = ["disclosed", "bits each", "a day"]
    counts = list(record("sharing/repetition")["rows"][0]["object"])
    return markdown(
        [*header, *(f"{part}, {count}" for part in ("object", "place") for count in counts)], rows
    )
