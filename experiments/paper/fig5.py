"""Figure 5 of [Du23]: how many steps two near prompts can share, N = 11, K = 0 ... 11; prints JSON.

    python -m experiments.paper.fig5 --images docs/images/paper --record experiments/records/paper/fig5.json

Pairs have the kind of their objects and their place in common ("an apple on a table", "a lemon on a table").
The shared steps run on the other member's prompt ("open", as in the paper) or on the group's public prompt
("kind").
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.paper.pairs import DISTANCES, MODES
from experiments.paper.record import Comparison, Record, Row, report
from experiments.paper.setting import arguments, curves
from experiments.paper.shared_steps import STEPS, measured

COMPARISONS = [
    Comparison({"mode": "kind", "K": k}, {"mode": "open", "K": k}, ("judge", "object"))
    for k in range(1, STEPS + 1)
] + [
    Comparison({"mode": mode, "K": k}, {"mode": mode, "K": 0}, ("judge", "object"))
    for mode in MODES
    for k in range(1, STEPS + 1)
]


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Plot the target's object and place against K, from the rows of a record."""
    if not rows[0]["judge"]:
        return
    names = {"open": "on the other prompt", "kind": "on the group's prompt"}
    panels = [
        (
            f"the target's {what}",
            "share of pictures",
            {
                names[mode]: [(row["K"], row["judge"][what]) for row in rows if row["mode"] == mode]
                for mode in MODES
            },
        )
        for what in ("object", "place")
    ]
    curves(panels, "shared steps K of 11", folder / "fig5_curves.png")


def measure(options: argparse.Namespace) -> Record:
    """Draw every pair at every K, and the grid of one pair's pictures."""
    return measured(
        options,
        "near pairs: the target's object and place against shared steps",
        DISTANCES[:1],
        "fig5_pictures.png",
    )


def main() -> None:
    report(arguments(__doc__).parse_args(), measure, COMPARISONS, draw)


if __name__ == "__main__":
    main()
