"""Measure the gain of modulation, code, unequal protection and noise-matched resume by SNR; prints JSON.

    python -m experiments.wireless.protection --images docs/images/wireless \\
        --record experiments/records/wireless/protection.json

The setting is near pairs, N = 11, K = 5, shared steps on the group's prompt, latents in plain 8-bit fixed point over
AWGN, and one transmission per block with the full chain. Quality is the SSIM to the picture without a channel, and the
judge's share of pictures with the target's object. The energy is that of Stable Diffusion v1-4 on the phone of the
profiles (partly assumed, see their sources): that of its denoising steps, and that of the radios of edge server and
phone at 1 MHz for its latents of 131,072 bits. The airtime is that of this model's latents, scaled by the ratio of the
numbers of bits.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress

from experiments.paper.pairs import DISTANCES, draw_pairs
from experiments.paper.record import Comparison, Record, Row, columns, new_record, report
from experiments.paper.setting import arguments, batches, curves, distances, open_setting, scores, starts
from experiments.quality.sampling import PROGRESS_CONSOLE
from experiments.wireless.group_size import LATENT_BITS
from fedaigc.diffusion.handoff.packing import number_format_at
from fedaigc.diffusion.sampling.noise_matched import resume_noise_matched
from fedaigc.diffusion.sampling.segment import finish_segment, run_segment
from fedaigc.diffusion.schedule.plan import latents_std
from fedaigc.rng import numpy_rng
from fedaigc.wireless.adaptive import choose_scheme
from fedaigc.wireless.block_code import MCS, Scheme
from fedaigc.wireless.channel import Channel
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.modulation import BITS_PER_SYMBOL, bit_error_rates
from fedaigc.wireless.number_format import NumberFormat
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE
from fedaigc.wireless.protection import UnequalChannel
from fedaigc.wireless.radio import RadioChannel, Transmission

STEPS, SHARED = 11, 5
SNRS_DB = (0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0)
PROTECTED = 2
# for the airtime only: the SNR is given
LINK = RadioLink(distance_m=1.0, tx_power_w=EDGE_SERVER.tx_power_w)


@dataclass(frozen=True)
class Variant:
    """A kind of protection.

    Attributes:
        scheme: The fixed scheme. None selects the adaptive one.
        planes: Number of most significant bit planes in MCS 2.
    """

    scheme: Scheme | None
    planes: int = 0
    noise_matched: bool = False

    def channel(self, snr_db: float) -> Channel:
        """Return the channel at this SNR."""
        rest = RadioChannel(Transmission(self.scheme or choose_scheme(snr_db)), snr_db)
        if not self.planes:
            return rest
        robust = RadioChannel(Transmission(MCS[2]), snr_db)
        return UnequalChannel(8, (self.planes, 8 - self.planes), (robust, rest))


VARIANTS = {
    **{f"uncoded {name}": Variant(Scheme(name, None)) for name in BITS_PER_SYMBOL},
    "uncoded 16qam, noise-matched": Variant(Scheme("16qam", None), noise_matched=True),
    "16qam, 2 planes coded": Variant(Scheme("16qam", None), planes=PROTECTED),
    "16qam at rate 0.54": Variant(MCS[8]),
    "qpsk at rate 0.44": Variant(MCS[3]),
    "adaptive": Variant(None),
}
PICTURE, OBJECT = ("against the picture without a channel", "ssim"), ("judge", "object")
COMPARISONS = [
    # every kind of protection against none, at the same modulation
    Comparison({"variant": name, "snr_db": snr}, {"variant": "uncoded 16qam", "snr_db": snr}, value)
    for name in VARIANTS
    if name != "uncoded 16qam"
    for snr in SNRS_DB
    for value in (PICTURE, OBJECT)
]


def plane_error_rates(modulation: Any, snr_db: float) -> np.ndarray:
    """Return the error rate of each bit plane, the mean over all positions in a symbol that its bits take in turn."""
    return np.full(8, bit_error_rates(modulation, snr_db).mean())


def radio_j(airtime_s: float) -> float:
    """Return the energy that sender and receiver use in this airtime."""
    return EDGE_SERVER.radio.send_energy_j(airtime_s) + PHONE.radio.receive_energy_j(airtime_s)


def measure(options: argparse.Namespace) -> Record:
    """Send every pair's latents by every variant at every SNR."""
    setting = open_setting(options)
    plan = setting.plan(STEPS)
    pairs = draw_pairs(options.pairs, options.seed, minimum=options.min_public_prompts)
    number_format = number_format_at("fixed8", plan, SHARED)
    pictures: dict[tuple[str, float], list[Image.Image]] = {
        (name, snr): [] for name in VARIANTS for snr in SNRS_DB
    }
    on_air: dict[tuple[str, float], list[float]] = {key: [] for key in pictures}
    airtime_s: dict[tuple[str, float], list[float]] = {key: [] for key in pictures}
    steps: dict[tuple[str, float], list[int]] = {key: [] for key in pictures}
    clean: list[Image.Image] = []
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(pairs))
        for numbers in batches(len(pairs)):
            chunk = [pairs[i] for i in numbers]
            own = {"prompt": [pair.own for pair in chunk]}
            shared = {"prompt": [pair.group for pair in chunk]}
            state = run_segment(
                setting.pipe, starts(setting, plan, numbers, options.seed), shared, plan, SHARED
            )
            clean += finish_segment(setting.pipe, state, own, plan)
            for (name, snr_db), images in pictures.items():
                variant = VARIANTS[name]
                latents, air, seconds = _received(
                    state.latents, number_format, variant, snr_db, numbers, options.seed
                )
                arrived = replace(state, latents=latents)
                on_air[name, snr_db] += air
                airtime_s[name, snr_db] += seconds
                taken = STEPS - SHARED
                if variant.noise_matched and variant.scheme is not None:
                    rates = plane_error_rates(variant.scheme.modulation, snr_db)
                    gain, variance = number_format.linear_error(latents_std(plan, SHARED), rates)
                    drawn, taken = resume_noise_matched(
                        setting.pipe, arrived, own, plan, gain=gain, error_variance=variance
                    )
                else:
                    drawn = finish_segment(setting.pipe, arrived, own, plan)
                images += drawn
                steps[name, snr_db].append(taken)
            progress.update(task, advance=len(chunk))
    bits = state.latents[0].numel() * number_format.width
    rows: list[Row] = [
        {
            "variant": name,
            "snr_db": snr_db,
            "bits on air by information bits": round(float(np.mean(on_air[name, snr_db])), 3),
            "steps on the device": float(np.mean(steps[name, snr_db])),
            "information bits": bits,
            "radio for these bits, J": round(radio_j(float(np.mean(airtime_s[name, snr_db]))), 7),
            "each": {
                "against the picture without a channel": distances(images, clean),
                **scores(setting, images, pairs),
            },
        }
        for (name, snr_db), images in pictures.items()
    ]
    return new_record(
        "quality against SNR for modulations and kinds of protection, AWGN",
        options,
        setting.base_hash,
        setting.guidance,
        {DISTANCES[0]: columns(pairs)},
        rows,
    )


def add_energy(record: Record) -> None:
    """Add to each row the joules of radio and denoising of the same model, Stable Diffusion v1-4."""
    for row in record["rows"]:
        row["Stable Diffusion v1-4"] = {
            "information bits": LATENT_BITS,
            "radio, J": round(row["radio for these bits, J"] * LATENT_BITS / row["information bits"], 4),
            "denoising on the phone, J": round(PHONE.step_j * row["steps on the device"], 1),
        }


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Plot the curves of all variants, from the rows of a record."""
    panels: list[tuple[str, str, dict[str, Any]]] = [("", "SSIM", {}), ("", "target object seen", {})]
    for name in VARIANTS:
        own_rows = [row for row in rows if row["variant"] == name]
        panels[0][2][name] = [
            (row["snr_db"], row["against the picture without a channel"]["ssim"]) for row in own_rows
        ]
        if own_rows[0]["judge"]:
            panels[1][2][name] = [(row["snr_db"], row["judge"]["object"]) for row in own_rows]
    curves([panel for panel in panels if panel[2]], "SNR, dB", folder / "protection_curves.png")


def _received(
    latents: torch.Tensor,
    number_format: NumberFormat,
    variant: Variant,
    snr_db: float,
    rows: Sequence[int],
    seed: int,
) -> tuple[torch.Tensor, list[float], list[float]]:
    """Return the received latents, and the bits on air per information bit and the airtime of each sample."""
    values, air, seconds = [], [], []
    for row, sample in zip(rows, latents, strict=True):
        bits = number_format.to_bits(sample.reshape(-1)).T.reshape(-1)
        reception = variant.channel(snr_db).send(bits, numpy_rng(seed, "radio", row, f"{snr_db}"))
        air.append(reception.bits_on_air / len(bits))
        seconds.append(LINK.airtime_s(reception.symbols))
        values.append(number_format.from_bits(reception.bits.reshape(8, -1).T).reshape(sample.shape))
    return torch.stack(values), air, seconds


def main() -> None:
    report(arguments(__doc__).parse_args(), measure, COMPARISONS, draw, add_energy)


if __name__ == "__main__":
    main()
