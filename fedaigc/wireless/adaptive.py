"""Adaptive modulation and coding: selects the fastest scheme that the channel supports."""

from collections.abc import Mapping

import numpy as np

from fedaigc.errors import UserError
from fedaigc.wireless.block_code import MCS, Scheme
from fedaigc.wireless.block_table import block_table


def choose_scheme(
    snr_db: float, block_error_rate: float = 0.1, schemes: Mapping[int, Scheme] = MCS
) -> Scheme:
    """Return the most efficient scheme whose block error rate at this SNR meets the target.

    Efficiency is the number of payload bits per symbol. If no scheme meets the target, the least efficient
    one is returned, which is the most robust.

    Args:
        snr_db: Es / N0 in dB at the time of sending, known to the sender.
        block_error_rate: Largest acceptable block error rate, in (0, 1).
        schemes: Candidate schemes by their index.

    Raises:
        UserError: If `block_error_rate` lies outside (0, 1), or `schemes` is empty.
    """
    if not 0 < block_error_rate < 1:
        raise UserError(f"the target block error rate must lie in (0, 1), got {block_error_rate}")
    if not schemes:
        raise UserError("no schemes to choose from")
    by_efficiency = sorted(schemes.values(), key=lambda scheme: scheme.efficiency)
    good = [
        scheme
        for scheme in by_efficiency
        if float(block_table(scheme).block_error_rate(np.array(snr_db))) <= block_error_rate
    ]
    return good[-1] if good else by_efficiency[0]
