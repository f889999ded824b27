"""Square Gray-labelled QAM: mapping by sionna, and exact error rates from theory.

Symbols have mean energy 1. The SNR is Es / N0 at the receiver, where N0 is the noise variance of the complex
sample (half of it in each real dimension).
"""

import math
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from fedaigc.wireless.sionna_random import load_sionna

Modulation = Literal["qpsk", "16qam", "64qam", "256qam"]
MODULATIONS: tuple[Modulation, ...] = get_args(Modulation)
BITS_PER_SYMBOL: dict[Modulation, int] = {"qpsk": 2, "16qam": 4, "64qam": 6, "256qam": 8}


@cache
def mapper(modulation: Modulation) -> Any:
    """Return sionna's mapper, which maps bits as floats (..., n m) to symbols (..., n)."""
    load_sionna()
    from sionna.phy.mapping import Mapper

    return Mapper("qam", BITS_PER_SYMBOL[modulation], device="cpu")


@cache
def demapper(modulation: Modulation, *, hard: bool) -> Any:
    """Return sionna's max-log demapper.

    The demapper takes symbols (..., n) after equalisation and N0 of each. It returns bits (..., n m), or
    their log-likelihood ratios ln p(1) / p(0). sionna's "app" method is biased at low SNR (16-QAM at 0 dB:
    0.2825 instead of 0.2873).

    Args:
        modulation: Modulation of the symbols.
        hard: Whether the demapper returns bits instead of log-likelihood ratios.
    """
    load_sionna()
    from sionna.phy.mapping import Demapper

    return Demapper("maxlog", "qam", BITS_PER_SYMBOL[modulation], hard_out=hard, device="cpu")


def bit_error_rates(
    modulation: Modulation, snr_db: float, *, rayleigh: bool = False
) -> Float[np.ndarray, " m"]:
    """Return the exact error rate of each bit of a symbol under hard decisions.

    In each real dimension with L = sqrt(M) levels, the error rate of bit k = 1 ... log2 L, starting with the
    sign, is [ChoYoon02, eq. 14]

        P(k) = 1/L sum_{i=0}^{(1 - 2^-k) L - 1} w(i, k) erfc((2i + 1) sqrt(3 snr / (2 (M - 1))))
        w(i, k) = (-1)^floor(i 2^(k-1) / L) (2^(k-1) - floor(i 2^(k-1) / L + 1/2))

    The bits of a symbol alternate between the two dimensions.

    Args:
        modulation: Modulation of the symbols.
        snr_db: Es / N0 in dB; its mean over the fades if `rayleigh`.
        rayleigh: Whether to average over Rayleigh fading that the receiver knows: erfc(sqrt(x snr)) then
            becomes 1 - sqrt(x snr / (1 + x snr)).

    Returns:
        Error rates in the bit order of the mapper, (m,).
    """
    order = 2 ** BITS_PER_SYMBOL[modulation]
    levels = math.isqrt(order)
    snr = 10 ** (snr_db / 10)

    def error(i: int) -> float:
        square = (2 * i + 1) ** 2 * 3 * snr / (2 * (order - 1))
        return 1 - math.sqrt(square / (1 + square)) if rayleigh else math.erfc(math.sqrt(square))

    rates = []
    for k in range(1, BITS_PER_SYMBOL[modulation] // 2 + 1):
        half = 2 ** (k - 1)
        total = 0.0
        for i in range(levels - levels // 2**k):
            sign = -1 if (i * half // levels) % 2 else 1
            total += sign * (half - math.floor(i * half / levels + 0.5)) * error(i)
        rates += [total / levels] * 2
    return np.array(rates)
