"""Figure 2 of [Du23]: eight steps on the device, alone or after seven shared ones; prints JSON.

    python -m experiments.paper.fig2 --images docs/images/paper --record experiments/records/paper/fig2.json

The device runs 8 steps in both cases: alone with N = 8, or after K = 7 of N = 15 that others ran. For comparison,
N = 15 alone costs the device 15 steps.
"""

import argparse
from textwrap import wrap

from PIL import Image
from rich.progress import Progress

from experiments.paper.pairs import DISTANCES, MODES, draw_pairs
from experiments.paper.record import Comparison, Record, columns, new_record, report
from experiments.paper.setting import arguments, batches, grid, open_setting, scores, starts
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.diffusion.sampling.segment import finish_segment, run_segment

LOCAL, SHARED = 8, 7
SHORT, LONG = f"alone, N = {LOCAL}", f"alone, N = {LOCAL + SHARED}"
SHARED_RUNS = {mode: f"shared ({mode}), N = {LOCAL + SHARED}, K = {SHARED}" for mode in MODES}
COMPARISONS = [
    Comparison({"run": first}, {"run": second}, ("judge", "object"))
    for first, second in (
        *((name, SHORT) for name in SHARED_RUNS.values()),
        (SHARED_RUNS["kind"], SHARED_RUNS["open"]),
        (LONG, SHORT),
    )
]


def measure(options: argparse.Namespace) -> Record:
    """Draw every run of every pair, and the grid of pictures."""
    setting = open_setting(options)
    short, long = setting.plan(LOCAL), setting.plan(LOCAL + SHARED)
    pairs = draw_pairs(options.pairs, options.seed, minimum=options.min_public_prompts)
    pictures: dict[str, list[Image.Image]] = {name: [] for name in (SHORT, *SHARED_RUNS.values(), LONG)}
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(pairs))
        for numbers in batches(len(pairs)):
            chunk = [pairs[i] for i in numbers]
            own = {"prompt": [pair.own for pair in chunk]}
            for name, plan in ((SHORT, short), (LONG, long)):
                begun = starts(setting, plan, numbers, options.seed)
                pictures[name] += finish_segment(setting.pipe, begun, own, plan)
            for mode, name in SHARED_RUNS.items():
                shared = {"prompt": [pair.shared_prompt(mode) for pair in chunk]}
                begun = starts(setting, long, numbers, options.seed)
                state = run_segment(setting.pipe, begun, shared, long, SHARED)
                pictures[name] += finish_segment(setting.pipe, state, own, long)
            progress.update(task, advance=len(chunk))
    rows = [
        {
            "run": name,
            "steps on the device": LOCAL + SHARED if name == LONG else LOCAL,
            "each": scores(setting, images, pairs),
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
    return new_record(
        "eight steps on the device, alone or after seven shared ones",
        options,
        setting.base_hash,
        setting.guidance,
        {DISTANCES[0]: columns(pairs)},
        rows,
    )


def main() -> None:
    report(arguments(__doc__).parse_args(), measure, COMPARISONS)


if __name__ == "__main__":
    main()
