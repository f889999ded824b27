"""Detection of a tensor in a sequence of numbers, at any scale, offset, position and number format.

The correlation is computed on differences of neighbouring values. In plain values, different means of channels form
steps and smooth pictures form slopes, which correlate between unrelated data. Differences contain neither of them.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

Numbers = npt.NDArray[np.float64]
CORRELATION = 0.5
# estimates beyond this are computed anew; what is found lies above
_CHECKED = 0.4
# a long sequence is transformed in overlapping blocks, which fit into a processor's cache
_BLOCK = 1 << 15


class Sequence:
    """Numbers of a message, prepared for the correlation of templates with all their windows."""

    def __init__(self, values: Numbers) -> None:
        # bytes that are read in a wrong format have any magnitude; the sums below need a bounded one
        bounded = np.diff(np.clip(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), -1e3, 1e3))
        self.differences = bounded
        self._sums = np.concatenate([[0.0], np.cumsum(bounded)])
        self._squares = np.concatenate([[0.0], np.cumsum(bounded**2)])
        self._scales: dict[int, Numbers] = {}
        self._spectra: dict[int, list[npt.NDArray[np.complex128]]] = {}

    def __len__(self) -> int:
        return len(self.differences)

    def scale(self, length: int) -> Numbers:
        """Return sqrt(length) times the standard deviation of every window of `length` differences."""
        if length not in self._scales:
            means = (self._sums[length:] - self._sums[:-length]) / length
            variances = (self._squares[length:] - self._squares[:-length]) / length - means**2
            self._scales[length] = np.sqrt(np.maximum(variances, 0.0) * length)
        return self._scales[length]

    def spectra(self, block: int) -> list[npt.NDArray[np.complex128]]:
        """Return the spectra of blocks of this size, one every `step(block)` differences."""
        if block not in self._spectra:
            starts = range(0, len(self), step(block))
            self._spectra[block] = [fft.rfft(self.differences[at : at + block], block) for at in starts]
        return self._spectra[block]


def step(block: int) -> int:
    """Return how many windows of a block are looked at: those that are whole if the template has a quarter of it."""
    return block - block // 4


class Template:
    """A private tensor, which is searched for by its Pearson correlation with every window of a sequence."""

    def __init__(self, form: str, values: Numbers) -> None:
        self.form = form
        differences = np.diff(values)
        centred = differences - differences.mean()
        self._values = centred / np.linalg.norm(centred)
        self._spectra: dict[int, npt.NDArray[np.complex128]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def largest_correlation(self, sequence: Sequence) -> float:
        """Return the largest absolute correlation over all windows, or 0 if the sequence is too short."""
        places = len(sequence) - len(self) + 1
        if places < 1:
            return 0.0
        block, spectrum = self._transformed(len(sequence))
        scales, whole = sequence.scale(len(self)), step(block)
        windows = np.lib.stride_tricks.sliding_window_view(sequence.differences, len(self))
        largest = 0.0
        for start, part in zip(range(0, places, whole), sequence.spectra(block), strict=False):
            scale = scales[start : start + whole]
            # windows that wrap around begin after these
            products = np.abs(fft.irfft(part * spectrum, block)[: len(scale)])
            # the correlation of a constant window is undefined, and would consist of rounding errors
            estimates = np.divide(products, scale, out=np.zeros_like(products), where=scale > 1e-6)
            if estimates.max() <= _CHECKED:
                largest = max(largest, float(estimates.max()))
                continue
            high = estimates > _CHECKED
            largest = max(largest, float(estimates[~high].max(initial=0.0)))
            again = start + np.flatnonzero(high)
            for some in np.array_split(again, 1 + len(again) // 256):
                largest = max(largest, self._exact(windows[some]))
        return largest

    def _transformed(self, length: int) -> tuple[int, npt.NDArray[np.complex128]]:
        """Return the size of blocks for a sequence of this length, and the template's spectrum at this size."""
        # rounded up, so that few different spectra are needed
        whole = -(-length // 8192) * 8192
        block = min(whole, max(_BLOCK, 4 << (len(self) - 1).bit_length()))
        if block not in self._spectra:
            self._spectra[block] = np.conj(fft.rfft(self._values, block))
        return block, self._spectra[block]

    def _exact(self, windows: Numbers) -> float:
        """Return the exact value for each window, since spectra round off small values next to large ones."""
        centred = windows - windows.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(centred, axis=1)
        products = np.abs(centred @ self._values)
        return float((products[lengths > 0] / lengths[lengths > 0]).max(initial=0.0))


def correlated(templates: Collection[Template], values: Numbers) -> Iterator[tuple[str, str]]:
    """The form of each template that is among the values, and how well it correlates there."""
    # a template of n differences needs n + 1 values
    if not templates or len(values) <= min(len(template) for template in templates):
        return
    sequence = Sequence(values)
    for template in templates:
        found = template.largest_correlation(sequence)
        if found > CORRELATION:
            yield template.form, f"correlation {found:.2f}"


def scalars(values: Iterable[Any]) -> Numbers:
    """The plain numbers among the values, in order."""
    return np.array([value for value in values if isinstance(value, int | float)], dtype=np.float64)


def flat(array: npt.NDArray[Any]) -> Numbers:
    return np.asarray(array, dtype=np.float64).ravel()


def layouts(picture: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return a picture [height, width, 3] as rows of pixels, as colour planes and in grey."""
    return [picture, picture.transpose(2, 0, 1), picture.mean(axis=2)]
