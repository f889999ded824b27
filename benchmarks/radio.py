"""A latent of 131,072 bits through the full chain, the abstraction, and plain sionna; prints JSON.

    python -m benchmarks.radio

Plain sionna is written as in its tutorials: encoder, mapper, AWGN, demapper, decoder with their defaults, all blocks
in one batch, 20 iterations for every block. The result is the median of `--repeats` alternating turns, in one
single-threaded process.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from fedaigc.rng import numpy_rng
from fedaigc.wireless.block_code import BLOCK_BITS, MCS
from fedaigc.wireless.fast_radio import FastRadioChannel
from fedaigc.wireless.modulation import BITS_PER_SYMBOL
from fedaigc.wireless.radio import RadioChannel, Transmission

BITS = 131_072
SCHEME = MCS[8]


def plain_sionna(snr_db: float) -> Callable[[], None]:
    """Return the chain of sionna's tutorials, on as many blocks of the same code."""
    from sionna.phy.channel import AWGN
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
    from sionna.phy.mapping import BinarySource, Demapper, Mapper

    width = BITS_PER_SYMBOL[SCHEME.modulation]
    source = BinarySource(device="cpu")
    encoder = LDPC5GEncoder(BLOCK_BITS, SCHEME.coded_bits, num_bits_per_symbol=width, device="cpu")
    decoder = LDPC5GDecoder(encoder, hard_out=True, device="cpu")
    mapper, demapper = Mapper("qam", width, device="cpu"), Demapper("app", "qam", width, device="cpu")
    channel, no = AWGN(device="cpu"), torch.tensor(10 ** (-snr_db / 10))

    def run() -> None:
        bits = source([-(-BITS // 1000), BLOCK_BITS])
        decoder(demapper(channel(mapper(encoder(bits)), no), no))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    bits = numpy_rng(0, "bits").integers(0, 2, BITS, dtype=np.uint8)
    random = numpy_rng(0, "benchmark")
    for snr_db in (6.5, 8.0):
        full, fast = (kind(Transmission(SCHEME), snr_db) for kind in (RadioChannel, FastRadioChannel))
        runs: dict[str, Callable[[], object]] = {
            "full chain": partial(full.send, bits, random),
            "abstraction": partial(fast.send, bits, random),
            "plain sionna": plain_sionna(snr_db),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(options.repeats + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if repeat:  # the first repeat builds graphs and tables
                    seconds[name].append(time.perf_counter() - start)
        median = {name: statistics.median(found) for name, found in seconds.items()}
        rows.append(
            {
                "snr_db": snr_db,
                "seconds": {name: round(value, 5) for name, value in median.items()},
                "full chain by plain sionna": round(median["full chain"] / median["plain sionna"], 3),
                "full chain by abstraction": round(median["full chain"] / median["abstraction"], 1),
            }
        )
    print(json.dumps({"what": "131,072 bits, 16-QAM at rate 0.54, AWGN", "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
