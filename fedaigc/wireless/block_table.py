"""Measured block errors of every coded scheme: how often a block fails, and with how many bit errors.

The tables of `sionna.sys` say whether a block fails, in steps of 1.6 dB, wider than the whole fall of these
curves, and nothing of the bits in a failed block. These were measured with `fedaigc.wireless.radio` by
`python -m experiments.wireless.measure_blocks`, which also writes where they come from.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, logit

from fedaigc.errors import DamagedFile, UserError
from fedaigc.wireless.block_code import MCS, PAYLOAD_BITS, Scheme

# of the number of bit errors in failed blocks, from the fewest to the most
QUANTILES = np.linspace(0, 1, 21)


@dataclass(frozen=True, eq=False)
class BlockTable:
    """One scheme over AWGN.

    snr_db: rising. blocks, failed: sent and failed there. error_quantiles: the bit errors of the failed ones
    at `QUANTILES`; where none failed, those of the nearest SNR below.
    """

    snr_db: Float[np.ndarray, " s"]
    blocks: Int[np.ndarray, " s"]
    failed: Int[np.ndarray, " s"]
    error_quantiles: Float[np.ndarray, "s q"]

    def block_error_rate(self, snr_db: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """The share of blocks that fail: log-odds interpolated linearly in dB, 1 below the table, 0 above.

        (failed + 1/2) / (blocks + 1) at the points, so that none is 0 or 1.
        """
        odds = logit((self.failed + 0.5) / (self.blocks + 1))
        rate = expit(np.interp(snr_db, self.snr_db, odds))
        return np.where(snr_db > self.snr_db[-1], 0.0, np.where(snr_db < self.snr_db[0], 1.0, rate))

    def draw_errors(
        self, snr_db: Float[np.ndarray, " n"], random: np.random.Generator
    ) -> Int[np.ndarray, " n"]:
        """Bit errors of failed blocks, at least one each: quantiles interpolated between SNRs and ranks."""
        rank = random.random(len(snr_db)) * (len(QUANTILES) - 1)
        place = np.interp(snr_db, self.snr_db, np.arange(len(self.snr_db)))
        row, column = np.floor(place).astype(int), np.floor(rank).astype(int)
        next_row = np.minimum(row + 1, len(self.snr_db) - 1)
        down, right = place - row, rank - column
        table = self.error_quantiles

        def along(rows: np.ndarray) -> np.ndarray:
            return (1 - right) * table[rows, column] + right * table[rows, column + 1]

        drawn = (1 - down) * along(row) + down * along(next_row)
        return np.clip(np.rint(drawn), 1, PAYLOAD_BITS).astype(np.int64)


@lru_cache(maxsize=1)
def block_tables() -> dict[Scheme, BlockTable]:
    """The tables that ship with fedaigc, one for every scheme of `MCS`. DamagedFile when there are none."""
    path = files("fedaigc.assets") / "wireless" / "block_errors.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["schemes"]
        return {
            MCS[int(index)]: BlockTable(
                np.array(entry["snr_db"], dtype=np.float64),
                np.array(entry["blocks"], dtype=np.int64),
                np.array(entry["failed"], dtype=np.int64),
                np.array(entry["error_quantiles"], dtype=np.float64),
            )
            for index, entry in stored.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{path}: no table of block errors ({type(error).__name__})") from error


def block_table(scheme: Scheme) -> BlockTable:
    """The table of a scheme. UserError for one that was not measured."""
    tables = block_tables()
    if scheme not in tables:
        known = ", ".join(f"{mcs.modulation} {mcs.code_rate:.3f}" for mcs in tables if mcs.code_rate)
        raise UserError(f"no block errors measured for {scheme}: use the full chain, or one of {known}")
    return tables[scheme]
