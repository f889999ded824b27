"""How numbers become bits on the air, and back: float32, float16, 8-bit fixed point, plain or Gray-coded.

[Du23] does not say how latents become bits, and it decides the result: at a bit error rate of 2 %, flipped
exponent bits leave half a percent of float values infinite or without a value. So the format is part of every
figure here.

Fixed point with range c has 256 cells of width d = c / 128 and reads the middle of a cell:

    q = clip(floor((x + c) / d), 0, 255)        x' = (q + 1/2) d - c

On the air q goes as its binary digits ("fixed8") or as those of its Gray code q xor (q >> 1) ("fixed8-gray").
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.special import ndtri
from torch import Tensor

from fedaigc.errors import UserError

FormatName = Literal["float32", "float16", "fixed8", "fixed8-gray"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
# the range in standard deviations: for a Gaussian in 256 cells the error is least near 3.9 (see the tests)
LOADING = 4.0
_LEVELS = 256
_FLOATS = {"float32": (torch.float32, "<u4", 32, 9), "float16": (torch.float16, "<u2", 16, 6)}


@dataclass(frozen=True)
class NumberFormat:
    """One number format.

    limit: the largest magnitude that a value is expected to have; of fixed point it is the range c. Floats
    carry larger values too: for them it only says what a receiver takes for implausible.

    Raises UserError for an unknown name or a limit that is not finite and above 0.
    """

    name: FormatName
    limit: float

    def __post_init__(self) -> None:
        if self.name not in FORMAT_NAMES:
            raise UserError(f"number format {self.name!r}: expected one of {', '.join(FORMAT_NAMES)}")
        if not (math.isfinite(self.limit) and self.limit > 0):
            raise UserError(f"the limit of a number format is {self.limit}: expected a finite number above 0")

    @property
    def width(self) -> int:
        """Bits of a value."""
        return _FLOATS[self.name][2] if self.is_float else 8

    @property
    def is_float(self) -> bool:
        """Whether a value can come out infinite or without a value."""
        return self.name in _FLOATS

    def to_bits(self, values: Float[Tensor, " n"]) -> UInt8[np.ndarray, "n width"]:
        """The bits of every value, the most significant first: of floats the sign, exponent, fraction.

        Raises UserError for values that are not finite: a run that diverged is not sent.
        """
        if not bool(torch.isfinite(values).all()):
            raise UserError(f"{int((~torch.isfinite(values)).sum())} of {len(values)} values are not finite")
        if self.is_float:
            dtype, integer, width, _ = _FLOATS[self.name]
            # beyond the largest half-precision number lies infinity, which nobody is to send
            limits = torch.finfo(dtype)
            cast = values.detach().cpu().float().clamp(limits.min, limits.max).to(dtype).numpy()
            return _digits(cast.astype(cast.dtype.newbyteorder("<"), copy=False).view(integer), width)
        cells = self._cells(values)
        return _digits(_gray(cells) if self.name == "fixed8-gray" else cells, 8)

    def from_bits(self, bits: UInt8[np.ndarray, "n width"]) -> Float[Tensor, " n"]:
        """The values of the bits, float32; of floats with bit errors they may be infinite or not a number."""
        if self.is_float:
            _, integer, width, _ = _FLOATS[self.name]
            numbers = _numbers(bits, width).astype(integer)
            return torch.from_numpy(numbers.view(integer.replace("u", "f")).astype(np.float32))
        codes = _numbers(bits, 8)
        return self._middles()[torch.from_numpy(_from_gray(codes) if self.name == "fixed8-gray" else codes)]

    def fill_erased(
        self, bits: UInt8[np.ndarray, "n width"], erased: Bool[np.ndarray, "n width"]
    ) -> UInt8[np.ndarray, "n width"]:
        """The bits with the erased ones filled in neutrally: the middle of what the bits before leave open.

        From the first erased bit of a value on, all of it is unknown, for less significant bits alone say
        little. A fixed-point value becomes the middle of the cells that its known first bits allow (0 when
        the first is erased); a float loses the rest of its fraction, and becomes 0 with an exponent unknown.
        """
        unknown = np.logical_or.accumulate(erased, axis=1)
        if self.is_float:
            head = _FLOATS[self.name][3]
            filled = np.where(unknown, 0, bits)
            filled[unknown[:, :head].any(axis=1)] = 0
            return filled.astype(np.uint8)
        first = unknown & ~np.pad(unknown, ((0, 0), (1, 0)))[:, :-1]
        if self.name == "fixed8":
            return np.where(unknown, first, bits).astype(np.uint8)
        # the middle is 1 0 0 ... in binary only: there and back
        binary = np.bitwise_xor.accumulate(bits, axis=1)
        return _digits(_gray(_numbers(np.where(unknown, first, binary).astype(np.uint8), 8)), 8)

    def linear_error(self, std: float, bit_error_rates: Float[np.ndarray, " 8"]) -> tuple[float, float]:
        """Gain and error variance of Gaussian values (mean 0, `std`) as they arrive: x' = g x + d.

        g = E[x x'] / E[x^2] and v = E[x'^2] - g^2 E[x^2], so that d is uncorrelated with x; rounding counts
        as part of d. Fixed point only; UserError for floats.
        """
        if self.is_float:
            raise UserError(f"{self.name} has no expected error: flipped exponents are unbounded")
        # quantiles as the sample: exact to 1e-4, and the same everywhere
        values = torch.from_numpy(std * ndtri((np.arange(20_000) + 0.5) / 20_000))
        cells = torch.from_numpy(self._cells(values))
        received = torch.from_numpy(self.transition_matrix(bit_error_rates))
        middles = self._middles().double()
        mean, mean_square = (received @ middles)[cells], (received @ middles.square())[cells]
        power = float(values.square().mean())
        gain = float((values * mean).mean()) / power
        return gain, float(mean_square.mean()) - gain**2 * power

    def transition_matrix(self, bit_error_rates: Float[np.ndarray, " 8"]) -> Float[np.ndarray, "256 256"]:
        """T(q, r): the chance that cell q is read as cell r. Fixed point only."""
        cells = np.arange(_LEVELS)
        codes = _digits(_gray(cells) if self.name == "fixed8-gray" else cells, 8)
        flipped = codes[:, None, :] != codes[None, :, :]
        chances = np.asarray(bit_error_rates, dtype=np.float64)
        return np.where(flipped, chances, 1 - chances).prod(axis=2)

    def _cells(self, values: Tensor) -> Int[np.ndarray, " n"]:
        step = self.limit / (_LEVELS // 2)
        cells = ((values.detach().cpu().double() + self.limit) / step).floor().clamp(0, _LEVELS - 1)
        return cells.numpy().astype(np.int64)

    def _middles(self) -> Float[Tensor, " 256"]:
        step = self.limit / (_LEVELS // 2)
        return ((torch.arange(_LEVELS, dtype=torch.float64) + 0.5) * step - self.limit).float()


def _digits(numbers: np.ndarray, width: int) -> UInt8[np.ndarray, "n width"]:
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint64)
    return ((numbers.astype(np.uint64)[:, None] >> shifts) & np.uint64(1)).astype(np.uint8)


def _numbers(bits: np.ndarray, width: int) -> np.ndarray:
    weights = np.uint64(1) << np.arange(width - 1, -1, -1, dtype=np.uint64)
    return (bits.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64).astype(np.int64)


def _gray(numbers: np.ndarray) -> np.ndarray:
    return numbers ^ (numbers >> 1)


def _from_gray(codes: np.ndarray) -> np.ndarray:
    numbers = codes.copy()
    for shift in (1, 2, 4):
        numbers ^= numbers >> shift
    return numbers
