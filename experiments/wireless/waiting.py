"""Measure the savings and the costs of a sender that waits for the end of deep fades; prints JSON.

    python -m experiments.wireless.waiting --images docs/images/wireless \\
        --record experiments/records/wireless/waiting.json

The setting is near pairs, N = 11, and K = 3 shared steps on the group's prompt. The link has a mean SNR of 9 dB,
Rayleigh fading at 1 m/s with one fade per packet, and one transmission in 16-QAM at rate 0.54, which needs about 7 dB.
While the current SNR is below 8 dB, the edge server continues to denoise, up to a maximum number of steps. Then it
sends in any state of the channel.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import Progress

from experiments.paper.pairs import DISTANCES, draw_pairs
from experiments.paper.record import Comparison, Record, Row, columns, new_record, report
from experiments.paper.setting import arguments, batches, curves, distances, open_setting, scores, starts
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.collaboration.link import LinkReport, Member, SimulatedLink
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.diffusion.handoff.packing import mended, pack, unpack
from fedaigc.diffusion.sampling.segment import finish_segment, run_segment

STEPS, SHARED = 11, 3
WAITS = (0, 1, 2, 3, 4, 6)
THRESHOLD_DB = 8.0
COMPARISONS = [
    Comparison({"waits at most": wait}, {"waits at most": 0}, value)
    for wait in WAITS[1:]
    for value in (
        ("packets with errors",),
        ("steps on the device",),
        ("judge", "object"),
        ("judge", "place"),
    )
]


def link(wait_steps: int, seed: int) -> SimulatedLink:
    """Return the link. Without waiting, it sends at any SNR."""
    settings = LinkSettings(
        number_format="fixed8-gray",
        snr_db=9.0,
        rayleigh=True,
        speed_m_s=1.0,
        scheme="mcs-8",
        send_above_db=THRESHOLD_DB if wait_steps else -200.0,
        wait_steps=max(1, wait_steps),
    )
    return SimulatedLink(settings, seed)


def measure(options: argparse.Namespace) -> Record:
    """Send every pair's latents under every bound on the wait."""
    setting = open_setting(options)
    plan = setting.plan(STEPS)
    pairs = draw_pairs(options.pairs, options.seed, minimum=options.min_public_prompts)
    clean: list[Image.Image] = []
    pictures: dict[int, list[Image.Image]] = {wait: [] for wait in WAITS}
    reports: dict[int, list[LinkReport]] = {wait: [] for wait in WAITS}
    own_steps: dict[int, list[float]] = {wait: [] for wait in WAITS}
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(pairs))
        for numbers in batches(len(pairs)):
            for row in numbers:
                pair = pairs[row]
                state = starts(setting, plan, [row], options.seed)
                states = {}
                for step in range(SHARED, SHARED + max(WAITS) + 1):
                    state = run_segment(setting.pipe, state, {"prompt": [pair.group]}, plan, step)
                    states[step] = state
                own = {"prompt": [pair.own]}
                clean += finish_segment(setting.pipe, states[SHARED], own, plan)
                for wait in WAITS:
                    radio = link(wait, options.seed)
                    first = Member(f"pair {row}", 0, SHARED)
                    leaves = radio.departure(first, range(SHARED + 1, STEPS))
                    member = Member(first.task_id, 0, leaves)
                    packet = pack(states[leaves], plan, "latents", "fixed8-gray")
                    arrived, report = radio.send({member: packet})[member]
                    received = mended(unpack(arrived, plan, "tolerant"), plan, "clip")
                    pictures[wait] += finish_segment(setting.pipe, received, own, plan)
                    reports[wait].append(report)
                    own_steps[wait].append(float(STEPS - leaves))
            progress.update(task, advance=len(numbers))

    rows = [
        {
            "waits at most": wait,
            "each": {
                "packets with errors": [int(r.bit_errors > 0) for r in reports[wait]],
                "steps on the device": own_steps[wait],
                "against the picture sent at K without a channel": distances(pictures[wait], clean),
                **scores(setting, pictures[wait], pairs),
            },
        }
        for wait in WAITS
    ]
    return new_record(
        "a sender that goes on denoising during a fade",
        options,
        setting.base_hash,
        setting.guidance,
        {DISTANCES[0]: columns(pairs)},
        rows,
    )


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Plot packets, work and pictures against the bound on the wait, from the rows of a record."""
    panels = [
        ("packets", "share with bit errors", _line(rows, "packets with errors")),
        ("work left to the device", "steps", _line(rows, "steps on the device")),
    ]
    if rows[0]["judge"]:
        seen = {
            what: [(row["waits at most"], row["judge"][what]) for row in rows] for what in ("object", "place")
        }
        panels.append(("pictures", "share of pictures", {f"target {what} seen": seen[what] for what in seen}))
    curves(panels, "steps that the edge waits at most", folder / "waiting_curves.png")


def _line(rows: Sequence[Row], name: str) -> dict[str, list[Any]]:
    return {"": [(row["waits at most"], row[name]) for row in rows]}


def main() -> None:
    report(arguments(__doc__).parse_args(), measure, COMPARISONS, draw)


if __name__ == "__main__":
    main()
