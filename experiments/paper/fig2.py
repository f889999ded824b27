"""Figure 2 of [Du23]: eight steps on the device, alone or after seven shared ones; prints JSON.

    python -m experiments.paper.fig2 --images docs/images/paper --record experiments/records/paper/fig2.json

The device runs 8 steps either way: alone with N = 8, or after K = 7 of N = 15 that it did not pay for. Beside
them N = 15 alone, which costs the device 15 steps.
"""

from textwrap import wrap

from rich.progress import Progress

from experiments.paper.pairs import MODES, draw_pairs
from experiments.paper.setting import arguments, batches, finish, grid, open_setting, scores, starts
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.diffusion.segment import finish_segment, run_segment

LOCAL, SHARED = 8, 7


def main() -> None:
    options = arguments(__doc__).parse_args()
    setting = open_setting(options)
    short, long = setting.plan(LOCAL), setting.plan(LOCAL + SHARED)
    pairs = draw_pairs(options.pairs, options.seed)
    names = ["alone, N = 8", *(f"shared ({mode}), N = 15, K = 7" for mode in MODES), "alone, N = 15"]
    pictures: dict[str, list] = {name: [] for name in names}
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(pairs))
        for numbers in batches(len(pairs)):
            chunk = [pairs[i] for i in numbers]
            own = {"prompt": [pair.own for pair in chunk]}
            for name, plan in ((names[0], short), (names[-1], long)):
                begun = starts(setting, plan, numbers, options.seed)
                pictures[name] += finish_segment(setting.pipe, begun, own, plan)
            for name, mode in zip(names[1:-1], MODES, strict=True):
                shared = {"prompt": [pair.shared_prompt(mode) for pair in chunk]}
                begun = starts(setting, long, numbers, options.seed)
                state = run_segment(setting.pipe, begun, shared, long, SHARED)
                pictures[name] += finish_segment(setting.pipe, state, own, long)
            progress.update(task, advance=len(chunk))
    rows = [
        {
            "run": name,
            "steps on the device": LOCAL + SHARED if name == names[-1] else LOCAL,
            "judge": scores(setting, images, pairs),
        }
        for name, images in pictures.items()
    ]
    if options.images is not None:
        shown = range(min(8, len(pairs)))
        grid(
            [(name, [images[i] for i in shown]) for name, images in pictures.items()],
            ["\n".join(wrap(pairs[i].own, 14)) for i in shown],
            options.images / "fig2_pictures.png",
        )
    finish(options, setting, "eight steps on the device, alone or after seven shared ones", rows)


if __name__ == "__main__":
    main()
