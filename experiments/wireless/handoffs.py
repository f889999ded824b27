"""Compare hand-offs with and without a multistep scheduler's history, `exact` and `latents`; prints JSON.

    python -m experiments.wireless.handoffs --images docs/images/wireless \\
        --record experiments/records/wireless/handoffs.json

Near pairs, N = 11, shared steps on the group's prompt, a perfect link. "exact" sends the scheduler's history,
"latents" lets the device restart at first order. Quality is the SSIM to the picture of the unsplit state, and
the judge's share of pictures with the target's object; bits are those of one member's packet.
"""

import argparse
from collections.abc import Sequence
from copy import copy
from pathlib import Path

from PIL import Image
from rich.progress import Progress

from experiments.paper.pairs import DISTANCES, draw_pairs
from experiments.paper.record import Comparison, Record, Row, columns, new_record, report
from experiments.paper.setting import (
    Panel,
    arguments,
    batches,
    curves,
    distances,
    open_setting,
    scores,
    starts,
)
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.diffusion.handoff.packing import Handoff, body_tensors, pack, packet_layout, unpack
from fedaigc.diffusion.sampling.segment import DenoisingState, finish_segment, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.wireless.number_format import FormatName

STEPS = 11
AT = (3, 5, 8)
SCHEDULERS = {
    "DPM++ 2M": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "PNDM": "PNDMScheduler",
}
FORMATS: tuple[FormatName | None, ...] = (None, "float16", "fixed8-gray")
HANDOFFS: tuple[Handoff, ...] = ("exact", "latents")
AS_COMPUTED = "as computed (float32)"
COMPARISONS = [
    Comparison(
        {"scheduler": scheduler, "K": k, "hand-off": HANDOFFS[1], "number format": name or AS_COMPUTED},
        {"scheduler": scheduler, "K": k, "hand-off": HANDOFFS[0], "number format": name or AS_COMPUTED},
        value,
    )
    for scheduler in SCHEDULERS
    for k in AT
    for name in FORMATS
    for value in (("against the unsplit run", "ssim"), ("judge", "object"))
]


def bits_a_member(packet: bytes, batch: int) -> int:
    """Return the bits of the header and of one sample's share of the body, since a batch is packed together."""
    body = sum(stop - start for start, stop in (tensor.span for tensor in body_tensors(packet)))
    return 8 * (packet_layout(packet).header[1] + body // batch)


def through(
    state: DenoisingState, plan: DenoisingPlan, handoff: Handoff, number_format: FormatName | None
) -> tuple[DenoisingState, int]:
    """Return the state as a member unpacks it, and its bits."""
    packet = pack(state, plan, handoff, number_format)
    return unpack(packet, plan), bits_a_member(packet, len(state.latents))


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Plot similarity against bits for each scheduler, from the rows of a record."""
    panels: list[Panel] = [
        (
            f"{scheduler}, K = {AT[1]} of {STEPS}",
            "SSIM to the unsplit run",
            {
                handoff: sorted(
                    (
                        (row["serialized bits"] / 1e3, row["against the unsplit run"]["ssim"])
                        for row in rows
                        if (row["scheduler"], row["K"], row["hand-off"]) == (scheduler, AT[1], handoff)
                    ),
                    key=lambda point: point[0],
                )
                for handoff in HANDOFFS
            },
        )
        for scheduler in SCHEDULERS
    ]
    curves(panels, "serialized kbit a member", folder / "handoffs_curves.png")


def measure(options: argparse.Namespace) -> Record:
    """Draw every pair by every scheduler, hand-off and number format."""
    import diffusers

    setting = open_setting(options)
    pairs = draw_pairs(options.pairs, options.seed, minimum=options.min_public_prompts)
    shipped = setting.pipe.scheduler
    rows: list[Row] = []
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(SCHEDULERS) * len(pairs))
        for scheduler, class_name in SCHEDULERS.items():
            setting.pipe.scheduler = getattr(diffusers, class_name).from_config(
                shipped.config, **({"skip_prk_steps": True} if scheduler == "PNDM" else {})
            )
            plan = setting.plan(STEPS)
            unsplit: dict[int, list[Image.Image]] = {k: [] for k in AT}
            pictures: dict[tuple[int, str, FormatName | None], list[Image.Image]] = {}
            bits: dict[tuple[int, str, FormatName | None], int] = {}
            for numbers in batches(len(pairs)):
                chunk = [pairs[i] for i in numbers]
                own = {"prompt": [pair.own for pair in chunk]}
                state = starts(setting, plan, numbers, options.seed)
                for k in AT:
                    shared = {"prompt": [pair.group for pair in chunk]}
                    state = run_segment(setting.pipe, state, shared, plan, k)
                    unsplit[k] += finish_segment(setting.pipe, copy(state), own, plan)
                    for handoff in HANDOFFS:
                        for name in FORMATS:
                            arrived, bits[k, handoff, name] = through(state, plan, handoff, name)
                            images = finish_segment(setting.pipe, arrived, own, plan)
                            pictures.setdefault((k, handoff, name), []).extend(images)
                progress.update(task, advance=len(chunk))
            rows += [
                {
                    "scheduler": scheduler,
                    "denoiser evaluations": plan.num_steps,
                    "K": k,
                    "hand-off": handoff,
                    "number format": name or AS_COMPUTED,
                    "serialized bits": bits[k, handoff, name],
                    "each": {
                        "against the unsplit run": distances(images, unsplit[k]),
                        **scores(setting, images, pairs),
                    },
                }
                for (k, handoff, name), images in pictures.items()
            ]
    setting.pipe.scheduler = shipped
    return new_record(
        "exact against latents hand-off: quality and bits",
        options,
        setting.base_hash,
        setting.guidance,
        {DISTANCES[0]: columns(pairs)},
        rows,
    )


def main() -> None:
    report(arguments(__doc__).parse_args(), measure, COMPARISONS, draw)


if __name__ == "__main__":
    main()
