"""Adaptive modulation and coding: the fastest scheme that the channel carries."""

from collections.abc import Mapping

import numpy as np

from fedaigc.errors import UserError
from fedaigc.wireless.block_code import MCS, Scheme
from fedaigc.wireless.block_table import block_table


def choose_scheme(
    snr_db: float, block_error_rate: float = 0.1, schemes: Mapping[int, Scheme] = MCS
) -> Scheme:
    """The scheme of the most payload bits a symbol whose blocks fail at most so often at this SNR.

    The most robust one when none does. snr_db is the SNR at the moment of sending, known to the sender.
    Raises UserError for a rate outside of (0, 1) or without schemes.
    """
    if not 0 < block_error_rate < 1:
        raise UserError(f"a block error rate to aim at lies in (0, 1), got {block_error_rate}")
    if not schemes:
        raise UserError("no schemes to choose from")
    by_efficiency = sorted(schemes.values(), key=lambda scheme: scheme.efficiency)
    good = [
        scheme
        for scheme in by_efficiency
        if float(block_table(scheme).block_error_rate(np.array(snr_db))) <= block_error_rate
    ]
    return good[-1] if good else by_efficiency[0]
