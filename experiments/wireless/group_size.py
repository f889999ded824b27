"""Energy and latency of a picture against the size of its group, and of two alternatives; prints JSON.

    python -m experiments.wireless.group_size --images docs/images/wireless \\
        --record experiments/records/wireless/group_size.json

Stable Diffusion v1-4's shapes, N = 11, K = 5, the profiles of `fedaigc.wireless.profiles` (partly assumed: see
their sources). "shared": the edge server runs K steps once and sends latents of 131,072 bits to each member.
"finished images": the edge server runs all steps for each member and sends it a JPEG file of 50,000 bytes
(assumed). "alone": every device runs all steps, and nothing is sent. The link has the mean SNR of `--distance`,
Rayleigh fading at walking pace, adaptive coding, and at most 4 transmissions; 200 packets for each row.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.paper.record import Row
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.rng import numpy_rng
from fedaigc.wireless.adaptive import choose_scheme
from fedaigc.wireless.fading import Fading, coherence_time_s
from fedaigc.wireless.fast_radio import FastRadioChannel
from fedaigc.wireless.link_budget import RadioLink
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE
from fedaigc.wireless.radio import Transmission

STEPS, SHARED = 11, 5
LATENT_BITS, IMAGE_BITS = 131_072, 8 * 50_000
SIZES = (1, 2, 4, 8)
PACKETS = 200


def airtimes(link: RadioLink, bits: int, seed: int) -> tuple[list[float], list[float]]:
    """Return seconds on the air, and until the last block arrived, of `PACKETS` payloads of `bits` bits."""
    # 3 dB of margin, because the sender knows the mean and not the fade
    transmission = Transmission(choose_scheme(link.snr_db - 3.0), 4, "erase")
    coherence_s = coherence_time_s(link.speed_m_s, link.carrier_hz)
    channel = FastRadioChannel(
        transmission, link.snr_db, Fading(max(1, round(coherence_s * link.symbol_rate_hz)))
    )
    air, late = [], []
    for number in range(PACKETS):
        random = numpy_rng(seed, "packet", bits, number)
        reception = channel.send(random.integers(0, 2, bits, dtype=np.uint8), random)
        air.append(link.airtime_s(reception.symbols))
        late.append(link.latency_s(reception.symbols, reception.transmissions))
    return air, late


def draw_curves(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Plot joules and seconds against group size, from the rows of a record."""
    from experiments.paper.setting import curves

    panels = [
        (
            title,
            label,
            {
                how: [(r["group size"], r[name]) for r in rows if r["how"] == how]
                for how in ("shared", "finished images", "alone")
            },
        )
        for title, label, name in (
            ("energy of the device", "joules a picture", "device_j"),
            ("energy of device and edge", "joules a picture", "system_j"),
            ("latency", "seconds", "latency_s"),
        )
    ]
    curves(panels, "group size", folder / "group_size_curves.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--distance", type=float, default=150.0, help="distance in metres, without line of sight"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    link = RadioLink(
        options.distance, EDGE_SERVER.tx_power_w, line_of_sight=False, bandwidth_hz=5e6, speed_m_s=3 / 3.6
    )
    latents, images = (airtimes(link, bits, options.seed) for bits in (LATENT_BITS, IMAGE_BITS))

    def row(
        how: str, size: int, device_j: Sequence[float], system_j: Sequence[float], latency_s: Sequence[float]
    ) -> Row:
        values = {"device_j": device_j, "system_j": system_j, "latency_s": latency_s}
        return {"how": how, "group size": size} | {
            name: clustered_mean(list(found), list(range(len(found)))).as_dict()
            for name, found in values.items()
        }

    rows = []
    for size in SIZES:
        own = STEPS if size == 1 else STEPS - SHARED
        send_j = [EDGE_SERVER.radio.send_energy_j(s) for s in latents[0]]
        receive_j = [PHONE.radio.receive_energy_j(s) for s in latents[0]]
        if size > 1:
            device = [PHONE.image_j(own) + r for r in receive_j]
            system = [
                d + s + EDGE_SERVER.shared_j(SHARED) / size for d, s in zip(device, send_j, strict=True)
            ]
            late = [EDGE_SERVER.shared_s(SHARED) + s + PHONE.image_s(own) for s in latents[1]]
            rows.append(row("shared", size, device, system, late))
        send_j = [EDGE_SERVER.radio.send_energy_j(s) for s in images[0]]
        device = [PHONE.radio.receive_energy_j(s) for s in images[0]]
        system = [d + s + EDGE_SERVER.image_j(STEPS) for d, s in zip(device, send_j, strict=True)]
        # the edge server runs the members one after the other, so a member waits for half of the others on average
        late = [EDGE_SERVER.image_s(STEPS) * (size + 1) / 2 + s for s in images[1]]
        rows.append(row("finished images", size, device, system, late))
        alone_j, alone_s = [PHONE.image_j(STEPS)] * 2, [PHONE.image_s(STEPS)] * 2
        rows.append(row("alone", size, alone_j, alone_j, alone_s))
    record = {
        "what": "energy and latency of a picture against group size, Stable Diffusion v1-4's shapes",
        "snr_db": link.snr_db,
        "link": asdict(link),
        "profiles": {"edge": asdict(EDGE_SERVER), "phone": asdict(PHONE)},
        "packets a row": PACKETS,
        "seed": options.seed,
        "rows": rows,
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.record is not None:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(text + "\n", encoding="utf-8")
    if options.images is not None:
        draw_curves(rows, options.images)


if __name__ == "__main__":
    main()
