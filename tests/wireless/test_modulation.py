"""Hard decisions of every modulation compared with exact formulas, over AWGN and Rayleigh fading."""

import numpy as np
import pytest
from scipy.stats import norm

from fedaigc.rng import numpy_rng
from fedaigc.wireless.block_code import Scheme
from fedaigc.wireless.fading import Fading
from fedaigc.wireless.modulation import BITS_PER_SYMBOL, MODULATIONS, Modulation, bit_error_rates
from fedaigc.wireless.radio import RadioChannel, Transmission

SNRS_DB = (0.0, 3.0, 6.0, 9.0, 12.0, 15.0)
SYMBOLS = 20_000
# one interval for all of modulations, SNRs, fadings and bit positions together: 99 % that none lies outside
COMPARISONS = len(SNRS_DB) * 2 * sum(BITS_PER_SYMBOL.values())
BOUND = norm.isf(0.01 / 2 / COMPARISONS)


@pytest.mark.parametrize("rayleigh", [False, True], ids=["awgn", "rayleigh"])
@pytest.mark.parametrize("modulation", MODULATIONS)
def test_error_rates_of_every_bit(modulation: Modulation, rayleigh: bool) -> None:
    width = BITS_PER_SYMBOL[modulation]
    # a fade a symbol: then the errors of different symbols are independent, and the interval is binomial
    fading = Fading(1 if rayleigh else None)
    for snr_db in SNRS_DB:
        random = numpy_rng(1, modulation, str(rayleigh), str(snr_db))
        sent = random.integers(0, 2, SYMBOLS * width, dtype=np.uint8)
        channel = RadioChannel(Transmission(Scheme(modulation, None)), snr_db, fading)
        reception = channel.send(sent, random)
        errors = (sent != reception.bits).reshape(SYMBOLS, width).sum(axis=0)
        rates = bit_error_rates(modulation, snr_db, rayleigh=rayleigh)
        # of rare errors the normal interval is too narrow: one error more either way
        allowed = BOUND * np.sqrt(SYMBOLS * rates * (1 - rates)) + 1
        assert (np.abs(errors - SYMBOLS * rates) <= allowed).all(), (snr_db, errors / SYMBOLS, rates)
        assert (reception.bits_on_air, reception.symbols) == (SYMBOLS * width, SYMBOLS)


def test_the_textbook_case() -> None:
    """QPSK: Q(sqrt(snr)) a bit; over Rayleigh (1 - sqrt(g / (1 + g))) / 2 with g = snr / 2."""
    assert bit_error_rates("qpsk", 0.0) == pytest.approx([norm.sf(1.0)] * 2)
    assert bit_error_rates("qpsk", 10.0, rayleigh=True) == pytest.approx([(1 - np.sqrt(5 / 6)) / 2] * 2)
    assert bit_error_rates("16qam", 0.0).mean() == pytest.approx(0.2873, abs=5e-5)
