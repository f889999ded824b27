"""Figure 6 of [Du23]: how far apart prompts may be that share steps, N = 11, K = 0 ... 11; prints JSON.

    python -m experiments.paper.fig6 --images docs/images/paper --record experiments/records/paper/fig6.json

Four distances: pairs with kind and place, place, kind, or nothing in common. The paper's own pair, "a cup on a
book" and "a tree near a river" at K = 4, is of the last kind. Modes as in `fig5`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.paper.pairs import DISTANCES, MODES
from experiments.paper.record import Comparison, Record, Row, report
from experiments.paper.setting import arguments, curves
from experiments.paper.shared_steps import measured

# the paper's own pair is at K = 4
PAPER_K = 4
COMPARISONS = [
    Comparison(
        {"in common": distance, "mode": "kind", "K": PAPER_K},
        {"in common": distance, "mode": "open", "K": PAPER_K},
        ("judge", what),
    )
    for distance in DISTANCES
    for what in ("object", "place")
] + [
    Comparison(
        {"in common": distance, "mode": mode, "K": PAPER_K},
        {"in common": DISTANCES[0], "mode": mode, "K": PAPER_K},
        ("judge", "object"),
    )
    for distance in DISTANCES[1:]
    for mode in MODES
]


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Plot object and place against K for every distance, from the rows of a record."""
    if not rows[0]["judge"]:
        return
    panels = [
        (
            f"shared steps on the {'other prompt' if mode == 'open' else 'group prompt'}",
            f"the target's {what}",
            {
                distance: [
                    (row["K"], row["judge"][what])
                    for row in rows
                    if row["in common"] == distance and row["mode"] == mode
                ]
                for distance in DISTANCES
            },
        )
        for what in ("object", "place")
        for mode in MODES
    ]
    curves(panels, "shared steps K of 11", folder / "fig6_curves.png")


def measure(options: argparse.Namespace) -> Record:
    """Draw every pair at every K, and the grid of one pair of each distance."""
    return measured(
        options,
        "pairs at four distances: object and place against shared steps",
        DISTANCES,
        "fig6_pictures.png",
    )


def main() -> None:
    report(arguments(__doc__).parse_args(), measure, COMPARISONS, draw)


if __name__ == "__main__":
    main()
