"""Gains of a flat channel over time: constant 1, or Rayleigh block fading."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.special import j0
from torch import Tensor

from fedaigc.errors import UserError
from fedaigc.wireless.sionna_random import load_sionna, sionna_random

_LIGHT_M_S = 299_792_458.0


@dataclass(frozen=True)
class Fading:
    """Block fading: all symbols of a fade have the same gain.

    Attributes:
        symbols_per_fade: Number of symbols with one gain; None for a gain of 1 throughout (AWGN only).

    Raises:
        UserError: If `symbols_per_fade` is below 1.
    """

    symbols_per_fade: int | None = None

    def __post_init__(self) -> None:
        if self.symbols_per_fade is not None and self.symbols_per_fade < 1:
            raise UserError(f"symbols_per_fade is {self.symbols_per_fade}: expected at least 1")

    def gains(
        self, num_symbols: int, random: np.random.Generator, start: int = 0
    ) -> Complex[Tensor, " num_symbols"]:
        """Draw the complex gains of consecutive symbols with sionna; their mean energy is 1.

        Every call draws new gains.

        Args:
            num_symbols: Number of symbols.
            random: Generator that seeds sionna's stream.
            start: Index of the first symbol, which sets where the fades begin.
        """
        if self.symbols_per_fade is None:
            return torch.ones(num_symbols, dtype=torch.complex64)
        load_sionna()
        from sionna.phy.channel import RayleighBlockFading

        fade = torch.arange(start, start + num_symbols) // self.symbols_per_fade
        with sionna_random(random):
            count = int(fade[-1] - fade[0]) + 1 if num_symbols else 0
            drawn, _ = RayleighBlockFading(1, 1, 1, 1, device="cpu")(count, 1)
        return drawn.reshape(-1)[fade - fade[0]] if num_symbols else drawn.reshape(-1)

    def energies(self, count: int, random: np.random.Generator) -> Float[np.ndarray, " count"]:
        """Draw |h|^2 of `count` independent fades; ones without fading."""
        if self.symbols_per_fade is None:
            return np.ones(count)
        return random.exponential(size=count)


NO_FADING = Fading()


def doppler_hz(speed_m_s: float, carrier_hz: float) -> float:
    """Return the largest Doppler shift v f / c in Hz.

    Raises:
        UserError: If the speed is below 0, or the carrier is not above 0.
    """
    if speed_m_s < 0 or carrier_hz <= 0:
        raise UserError(
            f"speed {speed_m_s} m/s, carrier {carrier_hz} Hz: expected a speed of at least 0 and a carrier above 0"
        )
    return speed_m_s * carrier_hz / _LIGHT_M_S


def coherence_time_s(speed_m_s: float, carrier_hz: float) -> float:
    """Return the time over which the channel stays nearly constant, in seconds [Rappaport02, 5.40.b].

        sqrt(9 / (16 pi)) / f_d,   f_d = v f / c

    The time is infinite at rest.

    Raises:
        UserError: As `doppler_hz`.
    """
    shift_hz = doppler_hz(speed_m_s, carrier_hz)
    return math.inf if shift_hz == 0 else math.sqrt(9 / (16 * math.pi)) / shift_hz


def energies_over_time(
    times_s: Float[np.ndarray, " times"], shift_hz: float, random: np.random.Generator
) -> Float[np.ndarray, " times"]:
    """Draw |h|^2 of one Rayleigh channel at given times [Clarke68].

        E h(t) h*(u) = J0(2 pi f_d |t - u|)

    The mean is 1. The distribution is exact for any times. With the same generator, the values at the first
    times do not depend on the times that follow.

    Args:
        times_s: Times in seconds, (times,).
        shift_hz: Largest Doppler shift f_d.
        random: Generator to draw from.
    """
    apart = np.abs(np.subtract.outer(times_s, times_s))
    covariance = j0(2 * math.pi * shift_hz * apart)
    # times close together have almost equal gains: the diagonal keeps the covariance positive definite
    factor = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(times_s)))
    white = random.standard_normal((len(times_s), 2)) @ np.array([1, 1j]) / math.sqrt(2)
    return np.abs(factor @ white) ** 2
