"""Measure how often coded blocks fail and how many bit errors a failed block has, and write the embedded table.

    python -m experiments.wireless.measure_blocks --work runs/wireless --install

Each scheme of `MCS` is measured over AWGN with the full chain, in steps of 0.25 dB where the curve falls, and in
coarser steps below, where every block fails and only the number of errors changes. An interrupted run continues where
it stopped.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

import fedaigc
from fedaigc.rng import numpy_rng
from fedaigc.wireless.block_code import MCS, PAYLOAD_BITS, Scheme
from fedaigc.wireless.block_table import QUANTILES
from fedaigc.wireless.radio import RadioChannel, Transmission

Point = dict[str, Any]
# offsets in dB below the SNR at which nearly all blocks fail
BELOW = (-20.0, -12.0, -8.0, -5.0, -3.0, -2.0, -1.0)
STEP_DB = 0.25
LOWEST_RATE = 1e-3


def measure_point(scheme: Scheme, snr_db: float, blocks: int, seed: int) -> Point:
    """Count the failed blocks of `blocks` at one SNR, with the quantiles of their bit errors."""
    random = numpy_rng(seed, "blocks", scheme.modulation, str(scheme.code_rate), f"{snr_db:.2f}")
    sent = random.integers(0, 2, blocks * PAYLOAD_BITS, dtype=np.uint8)
    received = RadioChannel(Transmission(scheme), snr_db).send(sent, random).bits
    errors = (sent != received).reshape(blocks, PAYLOAD_BITS).sum(axis=1)
    failed = errors[errors > 0]
    quantiles = np.quantile(failed, QUANTILES).round(1).tolist() if len(failed) else None
    return {"snr_db": snr_db, "blocks": blocks, "failed": len(failed), "error_quantiles": quantiles}


def measure(scheme: Scheme, options: argparse.Namespace, progress: Progress, cache: Path) -> list[Point]:
    """Measure all points of a scheme, from the lowest SNR up."""
    done: dict[str, Point] = json.loads(cache.read_text()) if cache.exists() else {}

    def point(snr_db: float, blocks: int) -> Point:
        key = f"{snr_db:.2f} {blocks}"
        if key not in done:
            done[key] = measure_point(scheme, snr_db, blocks, options.seed)
            cache.write_text(json.dumps(done))
        return done[key]

    # find where the curve begins to fall, from above, in steps of 1 dB with few blocks
    task = progress.add_task(f"{scheme.modulation} {scheme.code_rate:.3f}", total=None)
    start = 30.0
    while start > -8 and point(start, 64)["failed"] < 62:
        start -= 1.0
    points = [point(start + below, options.blocks // 5) for below in BELOW]
    snr_db = start
    while True:
        points.append(point(snr_db, options.blocks))
        progress.update(
            task, advance=1, description=f"{scheme.modulation} {scheme.code_rate:.3f}: {snr_db} dB"
        )
        if points[-1]["failed"] < LOWEST_RATE * options.blocks:
            break
        snr_db += STEP_DB
    for before, after in pairwise(points):
        after["error_quantiles"] = after["error_quantiles"] or before["error_quantiles"]
    progress.remove_task(task)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("runs/wireless"))
    parser.add_argument(
        "--blocks", type=int, default=1000, help="number of blocks per SNR where the curve falls"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", choices=list(MCS), default=list(MCS))
    parser.add_argument("--install", action="store_true", help="replace the table in fedaigc/assets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    schemes: dict[str, dict[str, list[Any]]] = {}
    began = time.monotonic()
    with Progress() as progress:
        for index in options.only:
            points = measure(MCS[index], options, progress, options.work / f"mcs{index}.json")
            columns = ("snr_db", "blocks", "failed", "error_quantiles")
            schemes[str(index)] = {name: [point[name] for point in points] for name in columns}
            print(index, MCS[index], [round(p["failed"] / p["blocks"], 4) for p in points], flush=True)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, without the points that an earlier call measured")
    if options.install:
        provenance = {
            "command": "python -m experiments.wireless.measure_blocks --install",
            "seed": options.seed,
            "chain": "24-bit checksum, 5G LDPC (20 iterations, offset min-sum), QAM, AWGN, max-log demapper",
            "quantiles": QUANTILES.round(2).tolist(),
            "sionna": version("sionna-no-rt"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        target = Path(fedaigc.__file__).parent / "assets" / "wireless" / "block_errors.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps({"provenance": provenance, "schemes": schemes}, indent=None) + "\n")
        print(f"installed {target}")


if __name__ == "__main__":
    main()
