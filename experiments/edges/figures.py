"""The figures of docs/how-to/edges.md: what an edge sends, and bytes and seconds by number of edges."""

from typing import Any

from experiments.pages.markdown import markdown
from experiments.pages.records import record
from experiments.pages.registry import table
from fedaigc.strategy.edge_sums import edge_halves

RECORD = "edges/compare"


@table
def edge_sends() -> str:
    """What an edge sends for every strategy, as the code decides it."""
    groups: dict[tuple[str, str], list[str]] = {}
    for half in edge_halves():
        groups.setdefault((half.sends, half.why), []).append(f"`{half.strategy}`")
    added = "the rule adds up what its clients send"
    rows = [[", ".join(names), sends, why or added] for (sends, why), names in sorted(groups.items())]
    return markdown(["strategy", "an edge sends", "because"], rows)


@table
def edge_round(strategy: str) -> str:
    """Bytes on both hops and seconds of a round, by number of edges."""
    rows = []
    for row in _rows(strategy):
        sizes = [
            f"{row[hop][way] / 1e6:.2f}" for hop in ("air bytes", "backhaul bytes") for way in ("down", "up")
        ]
        seconds = [f"{sum(row[part].values()):.2f}" for part in ("radio s", "backhaul s")]
        rows.append([_edges(row), *sizes, *seconds, f"{row['round s']:.2f}"])
    header = [
        "edges",
        "devices, MB down",
        "MB up",
        "backhaul, MB down",
        "MB up",
        "radio, s",
        "backhaul, s",
        "round, s",
    ]
    return markdown(header, rows)


@table
def edge_generation() -> str:
    """Prompts that share steps, groups and denoising steps of a generation, by number of edges."""
    rows = [
        [
            _edges(row),
            f"{row['shared']} of {row['prompts']}",
            str(row["groups"]),
            f"{row['steps']} of {row['steps alone']}",
        ]
        for row in record(RECORD)["generations"]
    ]
    return markdown(["edges", "prompts that share", "groups", "steps, of those alone"], rows)


def _rows(strategy: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = record(RECORD)["rows"]
    return [row for row in rows if row["strategy"] == strategy]


def _edges(row: dict[str, Any]) -> str:
    return str(row["edges"] or "none")
