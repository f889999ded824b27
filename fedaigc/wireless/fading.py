"""Gains of a flat channel over time: 1, or Rayleigh block fading, each as long as the channel stays."""

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
    """symbols_per_fade: symbols that see one gain; None for a gain of 1 throughout (AWGN alone)."""

    symbols_per_fade: int | None = None

    def __post_init__(self) -> None:
        if self.symbols_per_fade is not None and self.symbols_per_fade < 1:
            raise UserError(f"symbols_per_fade is {self.symbols_per_fade}: expected at least 1")

    def gains(
        self, num_symbols: int, random: np.random.Generator, start: int = 0
    ) -> Complex[Tensor, " num_symbols"]:
        """The gains of symbols `start` on, fresh ones for every call; mean energy 1, by sionna."""
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
        """|h|^2 of so many independent fades; ones without fading."""
        if self.symbols_per_fade is None:
            return np.ones(count)
        return random.exponential(size=count)


NO_FADING = Fading()


def doppler_hz(speed_m_s: float, carrier_hz: float) -> float:
    """The largest Doppler shift, v f / c. UserError for a speed below 0 or a carrier that is not above 0."""
    if speed_m_s < 0 or carrier_hz <= 0:
        raise UserError(f"speed {speed_m_s} m/s, carrier {carrier_hz} Hz: expected 0 or more, and above 0")
    return speed_m_s * carrier_hz / _LIGHT_M_S


def coherence_time_s(speed_m_s: float, carrier_hz: float) -> float:
    """How long the channel stays much the same: sqrt(9 / (16 pi)) / f_d, f_d = v f / c [Rappaport02, 5.40.b].

    Infinite at rest. Raises UserError as `doppler_hz` does.
    """
    shift_hz = doppler_hz(speed_m_s, carrier_hz)
    return math.inf if shift_hz == 0 else math.sqrt(9 / (16 * math.pi)) / shift_hz


def energies_over_time(
    times_s: Float[np.ndarray, " times"], shift_hz: float, random: np.random.Generator
) -> Float[np.ndarray, " times"]:
    """|h|^2 of one Rayleigh channel at these times: E h(t) h*(u) = J0(2 pi f_d |t - u|) [Clarke68].

    Mean 1; exact for any times, the same course for the same generator whatever times follow.
    """
    apart = np.abs(np.subtract.outer(times_s, times_s))
    covariance = j0(2 * math.pi * shift_hz * apart)
    # times that lie close together have all but equal gains: the diagonal keeps the factor real
    factor = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(times_s)))
    white = random.standard_normal((len(times_s), 2)) @ np.array([1, 1j]) / math.sqrt(2)
    return np.abs(factor @ white) ** 2
