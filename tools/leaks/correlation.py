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


class Sequence:
    """Numbers of a message, prepared for the correlation of templates with all their windows."""

    def __init__(self, values: Numbers) -> None:
        # bytes that are read in a wrong format have any magnitude; the sums below need a bounded one
        bounded = np.diff(np.clip(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), -1e3, 1e3))
        # round the size up, so that few different spectra of the templates are needed; windows that wrap around
        # are those that do not fit into the sequence
        self.size = fft.next_fast_len(-(-len(bounded) // 8192) * 8192, real=True)
        self.spectrum = fft.rfft(bounded, self.size)
        self.differences = bounded
        self._length = len(bounded)
        self._sums = np.concatenate([[0.0], np.cumsum(bounded)])
        self._squares = np.concatenate([[0.0], np.cumsum(bounded**2)])

    def __len__(self) -> int:
        return self._length

    def scale(self, length: int) -> Numbers:
        """Return sqrt(length) times the standard deviation of every window of `length` differences."""
        means = (self._sums[length:] - self._sums[:-length]) / length
        variances = (self._squares[length:] - self._squares[:-length]) / length - means**2
        return np.sqrt(np.maximum(variances, 0.0) * length)


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
        if sequence.size not in self._spectra:
            self._spectra[sequence.size] = np.conj(fft.rfft(self._values, sequence.size))
        products = fft.irfft(sequence.spectrum * self._spectra[sequence.size], sequence.size)[:places]
        scale = sequence.scale(len(self))
        # the correlation of a constant window is undefined, and would consist of rounding errors
        valid = np.flatnonzero(scale > 1e-6)
        estimates = np.abs(products[valid] / scale[valid])
        high = estimates > _CHECKED
        found = [float(estimates[~high].max(initial=0.0))]
        windows = np.lib.stride_tricks.sliding_window_view(sequence.differences, len(self))
        for part in np.array_split(valid[high], 1 + high.sum() // 256):
            found.append(self._exact(windows[part]))
        return max(found)

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
