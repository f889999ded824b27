"""Figure 3 of [Du23]: bit errors in the transmitted latents, N = 11, K = 5; prints JSON.

    python -m experiments.paper.fig3 --images docs/images/paper --record experiments/records/paper/fig3.json

Pictures of near pairs after bit errors at 0.5 to 10 %, compared with the error-free picture and scored by the
judge, for each number format and receiver; and the same radio (QPSK at the SNR with that error rate) with a
code.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from scipy.special import ndtri

from experiments.paper.pairs import DISTANCES, MODES, draw_pairs
from experiments.paper.record import Comparison, Record, Row, columns, new_record, report
from experiments.paper.setting import (
    Panel,
    Setting,
    arguments,
    batches,
    curves,
    distances,
    grid,
    open_setting,
    scores,
    starts,
)
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.diffusion.handoff.packing import number_format_at
from fedaigc.diffusion.sampling.noise_matched import resume_noise_matched
from fedaigc.diffusion.sampling.segment import DenoisingState, finish_segment, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, latents_std
from fedaigc.errors import NotFinite
from fedaigc.rng import numpy_rng
from fedaigc.wireless.block_code import MCS
from fedaigc.wireless.channel import BinarySymmetricChannel, Channel
from fedaigc.wireless.number_format import FormatName
from fedaigc.wireless.radio import RadioChannel, Transmission
from fedaigc.wireless.repair import Repair, repair

STEPS, SHARED = 11, 5
RATES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.06, 0.10)
# name: number format, receiver, coded
VARIANTS: dict[str, tuple[FormatName, Repair | Literal["match"], bool]] = {
    "fixed8": ("fixed8", "nothing", False),
    "fixed8-gray": ("fixed8-gray", "nothing", False),
    "fixed8, noise-matched": ("fixed8", "match", False),
    "float16, clipped": ("float16", "clip", False),
    "float16, as it came": ("float16", "nothing", False),
    "float32, clipped": ("float32", "clip", False),
    "fixed8, code of rate 0.44": ("fixed8", "nothing", True),
}
PICTURE, OBJECT = ("against the error-free picture", "ssim"), ("judge", "object")


def _key(mode: str, payload: str, rate: float) -> dict[str, object]:
    return {"mode": mode, "payload": payload, "bit error rate": rate}


COMPARISONS = [
    # the effect of errors on the objects, against none
    Comparison(_key(mode, name, rate), _key(mode, name, 0.0), OBJECT)
    for mode in MODES
    for name in VARIANTS
    for rate in RATES[1:]
] + [
    # the gain of other receivers and formats over plain fixed point without repair
    Comparison(_key(mode, name, rate), _key(mode, "fixed8", rate), value)
    for mode in MODES
    for name in VARIANTS
    if name != "fixed8"
    for rate in RATES[1:]
    for value in (PICTURE, OBJECT)
]


def channel_at(rate: float, coded: bool) -> Channel:
    """Return a channel that flips bits at `rate`, or coded QPSK at the SNR at which uncoded QPSK has this rate."""
    if not coded:
        return BinarySymmetricChannel(rate)
    # Q(sqrt(snr)) = rate
    return RadioChannel(Transmission(MCS[3]), 10 * np.log10(ndtri(rate) ** 2) if rate > 0 else 40.0)


def received(
    state: DenoisingState, plan: DenoisingPlan, name: str, rate: float, rows: Sequence[int], seed: int
) -> tuple[DenoisingState, list[bool], float]:
    """Return the received state, whether each of its samples is finite, and the bits on air per information bit."""
    format_name, how, coded = VARIANTS[name]
    number_format = number_format_at(format_name, plan, state.step)
    channel = channel_at(rate, coded)
    latents, finite, on_air, bits_sent = [], [], 0, 0
    for row, sample in zip(rows, state.latents, strict=True):
        bits = number_format.to_bits(sample.reshape(-1))
        # plane by plane, in the order of a packet
        reception = channel.send(bits.T.reshape(-1), numpy_rng(seed, "channel", row, f"{rate}"))
        on_air, bits_sent = on_air + reception.bits_on_air, bits_sent + bits.size
        values = number_format.from_bits(reception.bits.reshape(number_format.width, -1).T)
        values = repair(values, number_format.limit, how if how != "match" else "nothing")
        finite.append(bool(torch.isfinite(values).all()))
        latents.append(values.reshape(sample.shape))
    return replace(state, latents=torch.stack(latents)), finite, on_air / bits_sent


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Plot similarity and the judge's scores against the bit error rate, from the rows of a record."""
    panels: list[Panel] = [
        ("against the error-free picture, open", "SSIM", {}),
        ("the judge, open", "object seen", {}),
    ]
    for name in VARIANTS:
        points = [row for row in rows if row["mode"] == "open" and row["payload"] == name]
        for panel, value in (
            (panels[0], lambda row: row["against the error-free picture"]["ssim"]),
            (panels[1], lambda row: row["judge"].get("object")),
        ):
            if value(points[0]) is not None:
                panel[2][name] = [(100 * row["bit error rate"], value(row)) for row in points]
    curves([p for p in panels if p[2]], "bit error rate, %", folder / "fig3_curves.png")


def finished(
    setting: Setting, state: DenoisingState, prompts: Sequence[str], plan: DenoisingPlan
) -> list[Image.Image]:
    """Draw the pictures of a batch; one whose values are not finite is black, as it has none."""
    try:
        return finish_segment(setting.pipe, state, {"prompt": list(prompts)}, plan)
    except NotFinite:
        if len(prompts) == 1:
            return [Image.new("RGB", (plan.width, plan.height))]
    return [
        picture
        for row, prompt in enumerate(prompts)
        for picture in finished(setting, replace(state, latents=state.latents[row : row + 1]), [prompt], plan)
    ]


def measure(options: argparse.Namespace) -> Record:
    """Draw every pair through every channel, and the grid of one pair's pictures."""
    setting = open_setting(options)
    plan = setting.plan(STEPS)
    pairs = draw_pairs(options.pairs, options.seed, minimum=options.min_public_prompts)
    pictures: dict[tuple[str, str, float], list[Image.Image]] = {}
    lost: dict[tuple[str, str, float], int] = {}
    expansion: dict[str, float] = {}
    clean: dict[str, list[Image.Image]] = {mode: [] for mode in MODES}
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(MODES) * len(pairs))
        for mode in MODES:
            for numbers in batches(len(pairs)):
                chunk = [pairs[i] for i in numbers]
                shared = {"prompt": [pair.shared_prompt(mode) for pair in chunk]}
                own = {"prompt": [pair.own for pair in chunk]}
                state = run_segment(
                    setting.pipe, starts(setting, plan, numbers, options.seed), shared, plan, SHARED
                )
                clean[mode] += finish_segment(setting.pipe, state, own, plan)
                for name in VARIANTS:
                    for rate in RATES:
                        arrived, finite, ratio = received(state, plan, name, rate, numbers, options.seed)
                        expansion[name] = ratio
                        if VARIANTS[name][1] == "match" and rate > 0:
                            number_format = number_format_at("fixed8", plan, SHARED)
                            gain, variance = number_format.linear_error(
                                latents_std(plan, SHARED), np.full(8, rate)
                            )
                            images, _ = resume_noise_matched(
                                setting.pipe, arrived, own, plan, gain=gain, error_variance=variance
                            )
                        else:
                            images = finished(setting, arrived, own["prompt"], plan)
                        pictures.setdefault((mode, name, rate), []).extend(images)
                        key = (mode, name, rate)
                        lost[key] = lost.get(key, 0) + finite.count(False)
                progress.update(task, advance=len(chunk))
    rows: list[Row] = [
        {
            **_key(mode, name, rate),
            "bits on air by information bits": round(expansion[name], 3),
            "pictures from latents that are not finite": lost[mode, name, rate],
            "each": {
                "against the error-free picture": distances(images, clean[mode]),
                **scores(setting, images, pairs),
            },
        }
        for (mode, name, rate), images in pictures.items()
    ]
    if options.images is not None:
        shown = [(f"{name}", [pictures["open", name, rate][0] for rate in RATES]) for name in VARIANTS]
        grid(shown, [f"{100 * rate:g} %" for rate in RATES], options.images / "fig3_pictures.png")
    return new_record(
        "pictures after bit errors in the latents sent at K = 5 of 11",
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
