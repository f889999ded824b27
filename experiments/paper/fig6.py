"""Figure 6 of [Du23]: how far apart prompts may be that share steps, N = 11, K = 0 ... 11; prints JSON.

    python -m experiments.paper.fig6 --images docs/images/paper --record experiments/records/paper/fig6.json

Four distances: pairs with kind and place, place, kind, or nothing in common. The paper's own pair, "a cup on
a book" and "a tree near a river" at K = 4, is of the last sort. Modes as in `fig5`.
"""

from experiments.paper.pairs import DISTANCES, MODES
from experiments.paper.setting import arguments, curves, finish, grid, open_setting
from experiments.paper.shared_steps import STEPS, labelled, sweep


def main() -> None:
    options = arguments(__doc__).parse_args()
    setting = open_setting(options)
    rows, examples = sweep(setting, options, DISTANCES)
    if options.images is not None:
        columns = [f"K = {k}" for k in range(STEPS + 1)]
        grid(labelled(examples), columns, options.images / "fig6_pictures.png")
    if options.images is not None and setting.judge is not None:
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
        curves(panels, "shared steps K of 11", options.images / "fig6_curves.png")
    finish(options, setting, "pairs at four distances: object and place against shared steps", rows)


if __name__ == "__main__":
    main()
