"""Number formats on the air: float32, float16, and 8-bit fixed point, plain or Gray-coded.

[Du23] does not specify how latents become bits, and this choice decides the result: flipped exponent bits
leave half a percent of float values infinite or NaN at a bit error rate of 2 %. Every figure of this project
therefore names its format.

Fixed point with range c has 256 cells of width d = c / 128 and decodes to the middle of a cell:

    q = clip(floor((x + c) / d), 0, 255)        x' = (q + 1/2) d - c

On the air, q has its binary digits ("fixed8") or those of its Gray code q xor (q >> 1) ("fixed8-gray").

These are the formats of the latents of a packet. Those of updates and states are in `federation.wire.codec`.
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
# range in standard deviations: for a Gaussian in 256 cells the error is least near 3.9 (see the tests)
LOADING = 4.0
_LEVELS = 256
_FLOATS = {"float32": (torch.float32, "<u4", 32, 9), "float16": (torch.float16, "<u2", 16, 6)}


@dataclass(frozen=True)
class NumberFormat:
    """A number format for values on the air.

    Attributes:
        name: Name of the format.
        limit: Largest expected magnitude of a value; for fixed point, the range c. Floats also carry larger
            values: for them the limit only states what a receiver considers implausible.

    Raises:
        UserError: If the name is unknown, or the limit is not finite and above 0.
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
        """Number of bits per value."""
        return _FLOATS[self.name][2] if self.is_float else 8

    @property
    def is_float(self) -> bool:
        """Whether a decoded value can be infinite or NaN."""
        return self.name in _FLOATS

    def to_bits(self, values: Float[Tensor, " n"]) -> UInt8[np.ndarray, "n width"]:
        """Encode values, most significant bit first; for floats: sign, exponent, fraction.

        Args:
            values: Values to encode, (n,).

        Returns:
            Bits, (n, width).

        Raises:
            UserError: If a value is not finite: a run that diverged is not sent.
        """
        if not bool(torch.isfinite(values).all()):
            raise UserError(f"{int((~torch.isfinite(values)).sum())} of {len(values)} values are not finite")
        if self.is_float:
            dtype, integer, width, _ = _FLOATS[self.name]
            # clamped, since larger values would become infinite in half precision
            limits = torch.finfo(dtype)
            cast = values.detach().cpu().float().clamp(limits.min, limits.max).to(dtype).numpy()
            return _digits(cast.astype(cast.dtype.newbyteorder("<"), copy=False).view(integer), width)
        cells = self._cells(values)
        return _digits(_gray(cells) if self.name == "fixed8-gray" else cells, 8)

    def from_bits(self, bits: UInt8[np.ndarray, "n width"]) -> Float[Tensor, " n"]:
        """Decode bits to float32 values; floats with bit errors may be infinite or NaN.

        Args:
            bits: Bits, (n, width), most significant first.

        Returns:
            Values, (n,).
        """
        if self.is_float:
            _, integer, width, _ = _FLOATS[self.name]
            numbers = _numbers(bits, width).astype(integer)
            return torch.from_numpy(numbers.view(integer.replace("u", "f")).astype(np.float32))
        codes = _numbers(bits, 8)
        return self._middles()[torch.from_numpy(_from_gray(codes) if self.name == "fixed8-gray" else codes)]

    def fill_erased(
        self, bits: UInt8[np.ndarray, "n width"], erased: Bool[np.ndarray, "n width"]
    ) -> UInt8[np.ndarray, "n width"]:
        """Fill erased bits with the middle of the range that the bits before them leave open.

        From its first erased bit on, a value counts as unknown, since less significant bits alone carry
        little information. A fixed-point value becomes the middle of the cells that its known first bits
        allow (the cell next to 0 if the first bit is erased). A float loses the rest of its fraction, and
        becomes 0 if its exponent is unknown.

        Args:
            bits: Received bits, (n, width).
            erased: Which of them are erased, (n, width).
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
        # the middle is 1 0 0 ... in plain binary only, so Gray code is converted and converted back
        binary = np.bitwise_xor.accumulate(bits, axis=1)
        return _digits(_gray(_numbers(np.where(unknown, first, binary).astype(np.uint8), 8)), 8)

    def linear_error(self, std: float, bit_error_rates: Float[np.ndarray, " 8"]) -> tuple[float, float]:
        """Return gain g and error variance v of Gaussian values after transmission.

        Values x of mean 0 and standard deviation `std` arrive as

            x' = g x + d,   g = E[x x'] / E[x^2],   v = E[x'^2] - g^2 E[x^2]

        so that d is uncorrelated with x. Rounding is part of d.

        Args:
            std: Standard deviation of the values.
            bit_error_rates: Error rate of each bit, most significant first, (8,).

        Raises:
            UserError: If the format is not fixed point.
        """
        if self.is_float:
            raise UserError(f"{self.name} has no expected error: flipped exponents are unbounded")
        # quantiles instead of a random sample: exact to 1e-4, and the same on every machine
        values = torch.from_numpy(std * ndtri((np.arange(20_000) + 0.5) / 20_000))
        cells = torch.from_numpy(self._cells(values))
        received = torch.from_numpy(self.transition_matrix(bit_error_rates))
        middles = self._middles().double()
        mean, mean_square = (received @ middles)[cells], (received @ middles.square())[cells]
        power = float(values.square().mean())
        gain = float((values * mean).mean()) / power
        return gain, float(mean_square.mean()) - gain**2 * power

    def transition_matrix(self, bit_error_rates: Float[np.ndarray, " 8"]) -> Float[np.ndarray, "256 256"]:
        """Return T(q, r), the probability that cell q is read as cell r. Fixed point only.

        Args:
            bit_error_rates: Error rate of each bit, most significant first, (8,).

        Returns:
            T, (256, 256).
        """
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
