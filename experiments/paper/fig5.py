"""Figure 5 of [Du23]: how many steps two near prompts can share, N = 11, K = 0 ... 11; prints JSON.

    python -m experiments.paper.fig5 --images docs/images/paper --record experiments/records/paper/fig5.json

Pairs with the kind of their objects and their place in common ("an apple on a table", "a lemon on a table").
The shared steps run on the other member's prompt ("open", as in the paper) or on the group's public prompt
("kind").
"""

from experiments.paper.pairs import DISTANCES, MODES
from experiments.paper.setting import arguments, curves, finish, grid, open_setting
from experiments.paper.shared_steps import STEPS, labelled, sweep


def main() -> None:
    options = arguments(__doc__).parse_args()
    setting = open_setting(options)
    rows, examples = sweep(setting, options, DISTANCES[:1])
    if options.images is not None:
        columns = [f"K = {k}" for k in range(STEPS + 1)]
        grid(labelled(examples), columns, options.images / "fig5_pictures.png")
    if options.images is not None and setting.judge is not None:
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
        curves(panels, "shared steps K of 11", options.images / "fig5_curves.png")
    finish(options, setting, "near pairs: the target's object and place against shared steps", rows)


if __name__ == "__main__":
    main()
