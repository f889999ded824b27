"""Figures 5 and 6 of [Du23]: how many steps prompts can share, and how far apart they may be; prints JSON.

    python -m experiments.paper.fig5 --images docs/images/paper --record experiments/records/paper/fig5.json

N = 11; K = 0 ... 11 shared steps on another member's prompt ("open", as in the paper) or on the group's
public prompt ("kind"), for pairs with kind and place, place, kind, or nothing in common. Figure 5 is the
first sort of pair, Figure 6 (K = 4, "a cup on a book" for "a tree near a river") the last.
"""

from rich.progress import Progress

from experiments.paper.pairs import DISTANCES, MODES, draw_pairs
from experiments.paper.setting import (
    arguments,
    batches,
    curves,
    finish,
    grid,
    open_setting,
    scores,
    starts,
)
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.diffusion.segment import finish_segment, run_segment

STEPS = 11


def main() -> None:
    options = arguments(__doc__).parse_args()
    setting = open_setting(options)
    plan = setting.plan(STEPS)
    rows, examples = [], []
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(DISTANCES) * len(MODES) * options.pairs)
        for distance in DISTANCES:
            pairs = draw_pairs(options.pairs, options.seed, distance)
            for mode in MODES:
                pictures: dict[int, list] = {k: [] for k in range(STEPS + 1)}
                for numbers in batches(len(pairs)):
                    chunk = [pairs[i] for i in numbers]
                    shared = {"prompt": [pair.shared_prompt(mode) for pair in chunk]}
                    own = {"prompt": [pair.own for pair in chunk]}
                    state = starts(setting, plan, numbers, options.seed)
                    for k in range(STEPS + 1):
                        state = run_segment(setting.pipe, state, shared, plan, k)
                        pictures[k] += finish_segment(setting.pipe, state, own, plan)
                    progress.update(task, advance=len(chunk))
                rows += [
                    {
                        "in common": distance,
                        "mode": mode,
                        "K": k,
                        "judge": scores(setting, pictures[k], pairs),
                    }
                    for k in pictures
                ]
                examples.append(
                    (
                        f"{pairs[0].own}\nfrom {pairs[0].shared_prompt(mode)}",
                        [p[0] for p in pictures.values()],
                    )
                )
    if options.images is not None:
        grid(examples, [f"K = {k}" for k in range(STEPS + 1)], options.images / "fig5_pictures.png")
    if options.images is not None and setting.judge is not None:
        panels = [
            (
                f"shared steps on the {'other prompt' if mode == 'open' else 'group prompt'}",
                "target object seen",
                {
                    distance: [
                        (row["K"], row["judge"]["object"])
                        for row in rows
                        if row["in common"] == distance and row["mode"] == mode
                    ]
                    for distance in DISTANCES
                },
            )
            for mode in MODES
        ]
        curves(panels, "shared steps K of 11", options.images / "fig5_curves.png")
    finish(options, setting, "the target's object and place against the number of shared steps", rows)


if __name__ == "__main__":
    main()
