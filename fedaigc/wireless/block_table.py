"""Measured block errors of every coded scheme: block error rates, and bit errors of failed blocks.

The tables of `sionna.sys` state whether a block fails, in steps of 1.6 dB, which is wider than the whole drop
of these curves. They contain nothing about the bits of a failed block. The tables used here were measured
with `fedaigc.wireless.radio` by `python -m experiments.wireless.measure_blocks`, which also records their
origin.
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

# levels of the quantiles of the number of bit errors in failed blocks
QUANTILES = np.linspace(0, 1, 21)


@dataclass(frozen=True, eq=False)
class BlockTable:
    """Measured block errors of one scheme over AWGN.

    Attributes:
        snr_db: Es / N0 in dB, ascending.
        blocks: Number of blocks sent at each SNR.
        failed: Number of these blocks that failed.
        error_quantiles: Bit errors of the failed blocks at the levels `QUANTILES`, (s, q). If no block failed
            at an SNR, those of the nearest lower SNR.
    """

    snr_db: Float[np.ndarray, " s"]
    blocks: Int[np.ndarray, " s"]
    failed: Int[np.ndarray, " s"]
    error_quantiles: Float[np.ndarray, "s q"]

    def block_error_rate(self, snr_db: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the block error rate: 1 below the table, 0 above it.

        Between the points, the log-odds are interpolated linearly in dB. At the points, the rate is

            (failed + 1/2) / (blocks + 1)

        so that it is never 0 or 1.

        Args:
            snr_db: Es / N0 in dB, of any shape.
        """
        odds = logit((self.failed + 0.5) / (self.blocks + 1))
        rate = expit(np.interp(snr_db, self.snr_db, odds))
        return np.where(snr_db > self.snr_db[-1], 0.0, np.where(snr_db < self.snr_db[0], 1.0, rate))

    def draw_errors(
        self, snr_db: Float[np.ndarray, " n"], random: np.random.Generator
    ) -> Int[np.ndarray, " n"]:
        """Draw the numbers of bit errors of failed blocks, at least 1 each.

        The quantiles are interpolated between SNRs and between ranks.

        Args:
            snr_db: Es / N0 in dB of each failed block, (n,).
            random: Generator to draw from.

        Returns:
            Number of bit errors of each block, (n,).
        """
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
    """Return the tables that ship with fedaigc, one for every scheme of `MCS`.

    Raises:
        DamagedFile: If the tables are missing or cannot be read.
    """
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
        raise DamagedFile(f"{path} is not a table of block errors ({type(error).__name__})") from error


def block_table(scheme: Scheme) -> BlockTable:
    """Return the table of a scheme.

    Raises:
        UserError: If the scheme was not measured.
    """
    tables = block_tables()
    if scheme not in tables:
        known = ", ".join(f"{mcs.modulation} {mcs.code_rate:.3f}" for mcs in tables if mcs.code_rate)
        raise UserError(f"no block errors measured for {scheme}: use the full chain, or one of {known}")
    return tables[scheme]
