"""Few steps: object and place of the target at N = 1, 2, 4, alone and after every number K < N of shared steps.

    python -m experiments.quality.few_steps --model embedded \\
        --record experiments/records/few_steps/embedded.json
    python -m experiments.quality.few_steps --model embedded-lcm \\
        --record experiments/records/few_steps/embedded-lcm.json

Two members have different objects of one kind at one place ("an apple on a table", "a lemon on a table"), as in
Figure 5. The K shared steps run once, on the group's public prompt, and the packet goes to the other member. A row also
has what two pictures cost: denoising steps, evaluations (guidance evaluates twice a step), the joules of these by the
profile of a phone (`fedaigc.wireless.profiles.PHONE`: a step with guidance is two evaluations), and the bits of the
packet. Prints JSON.
"""

import argparse
from dataclasses import replace

from PIL import Image
from rich.progress import Progress

from experiments.paper.pairs import DISTANCES, draw_pairs
from experiments.paper.record import Comparison, Record, Row, columns, new_record, report
from experiments.paper.setting import arguments, batches, open_setting, scores, starts
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.diffusion.handoff.packing import pack
from fedaigc.diffusion.sampling.count import DenoiserCount
from fedaigc.diffusion.sampling.segment import finish_segment, run_segment
from fedaigc.wireless.profiles import PHONE

STEPS = (1, 2, 4)
COMPARISONS = [
    Comparison({"N": n, "K": k}, {"N": n, "K": 0}, ("judge", which))
    for n in STEPS
    for k in range(1, n)
    for which in ("object", "place")
]


def measure(options: argparse.Namespace) -> Record:
    """Draw the target's picture of every pair at each N and K."""
    setting = open_setting(options)
    pairs = draw_pairs(options.pairs, options.seed, minimum=options.min_public_prompts)
    rows: list[Row] = []
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(STEPS) * options.pairs)
        for steps in STEPS:
            plan = setting.plan(steps)
            pictures: dict[int, list[Image.Image]] = {k: [] for k in range(steps)}
            bits: dict[int, int] = dict.fromkeys(range(steps), 0)
            per_step = 0.0
            for numbers in batches(len(pairs)):
                chunk = [pairs[i] for i in numbers]
                shared = {"prompt": [pair.group for pair in chunk]}
                own = {"prompt": [pair.own for pair in chunk]}
                state = starts(setting, plan, numbers, options.seed)
                for k in range(steps):
                    if k:
                        state = run_segment(setting.pipe, state, shared, plan, k)
                        # the packet of one group: that of the batch has the latents of all
                        bits[k] = 8 * len(pack(replace(state, latents=state.latents[:1]), plan))
                    with DenoiserCount(setting.pipe) as counted:
                        pictures[k] += finish_segment(setting.pipe, state, own, plan)
                    per_step = counted.samples / (len(chunk) * (steps - k))
                progress.update(task, advance=len(chunk))
            for k, found in pictures.items():
                taken = k + 2 * (steps - k)
                rows.append(
                    {
                        "N": steps,
                        "K": k,
                        "steps of two pictures": taken,
                        "steps saved": 2 * steps - taken,
                        "evaluations": per_step * taken,
                        "joules": round(per_step * taken / 2 * PHONE.step_j, 2),
                        "joules saved": round(per_step * (2 * steps - taken) / 2 * PHONE.step_j, 2),
                        "bits sent": bits[k],
                        "each": scores(setting, found, pairs),
                    }
                )
    what = "few steps: the target's object and place, alone and with shared steps"
    return new_record(
        what, options, setting.base_hash, setting.guidance, {DISTANCES[0]: columns(pairs)}, rows
    )


def main() -> None:
    parser = arguments(__doc__)
    report(parser.parse_args(), measure, COMPARISONS)


if __name__ == "__main__":
    main()
