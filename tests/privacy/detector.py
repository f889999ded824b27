"""Finds private content in the plain messages that leave a client.

A message is plain data: dicts, lists, strings, numbers, booleans, None, bytes and numpy arrays. It looks
for these secrets, in these forms:

    text        every string is in a closed vocabulary or a concept id; every other one is a leak
    concepts    no id of a concept that the policy keeps back
    words       private words of six letters and more in bytes: plain, base64, hexadecimal, gzip, zlib, nested
    token ids   three consecutive token ids of a private prompt, in any sequence of numbers
    embedding   the text embedding of a private prompt, by correlation
    pixels      a private picture, by correlation, and any PNG, JPEG, GIF, BMP or WebP file at all
    latents     the autoencoder's latents of a private picture, by correlation

Correlation is Pearson's, of the private tensor against every window of every sequence of numbers in the
message, so that neither scale, offset, place nor number format hides it.
"""

import base64
import binascii
import copy
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft

Numbers = npt.NDArray[np.float64]

MIN_WORD_IN_BYTES = 6
TOKENS_IN_A_ROW = 3
# bytes read as single numbers repeat by chance: 256 values, not 65,536
TOKENS_IN_A_ROW_OF_BYTES = 5
CORRELATION = 0.5
MAX_NESTING = 3
_CONCEPT = re.compile(r"n\d{8}")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
_CORRELATED_VIEWS = ("u1", "i1", "<i2", "<f2", "<f4", "<f8")
_TOKEN_VIEWS = ("<u2", "<i4", "<i8")


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"[^\W\d_]+", text.lower()))


@dataclass(frozen=True)
class Secrets:
    """What must not leave the device.

    words: those of prompts and captions, less the disclosed ones. concepts: ids of what they mean, likewise.
    token_ids: one sequence a prompt.
    public_ids: token ids of words that anybody may know. embeddings, pixels, latents: of any shape.
    """

    words: frozenset[str]
    concepts: frozenset[str]
    token_ids: tuple[tuple[int, ...], ...]
    public_ids: frozenset[int]
    embeddings: tuple[npt.NDArray[Any], ...]
    pixels: tuple[npt.NDArray[Any], ...]
    latents: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True)
class Leak:
    """One finding: where in the message, in which form, and what."""

    path: str
    form: str
    what: str


class Detector:
    """Searches messages for the secrets.

    vocabulary: the strings that may occur, known before any prompt was written: enum values, field names,
    layer names, hashes that the server itself sent, task ids. is_concept: whether the taxonomy has an id.
    """

    def __init__(
        self, secrets: Secrets, vocabulary: Iterable[str], is_concept: Callable[[str], bool]
    ) -> None:
        self._secrets = secrets
        self._vocabulary = frozenset(vocabulary)
        self._is_concept = is_concept
        long_words = {word for word in secrets.words if len(word) >= MIN_WORD_IN_BYTES}
        self._long_words = [word.encode() for word in sorted(long_words | secrets.concepts)]
        self._grams = {
            size: {
                gram for ids in secrets.token_ids for gram in _private_grams(ids, size, secrets.public_ids)
            }
            for size in (TOKENS_IN_A_ROW, TOKENS_IN_A_ROW_OF_BYTES)
        }
        self._templates = [
            *(_Template("embedding", _flat(array)) for array in secrets.embeddings),
            *(_Template("latents", _flat(array)) for array in secrets.latents),
            *(_Template("pixels", _flat(layout)) for array in secrets.pixels for layout in _layouts(array)),
        ]

    def also_allowing(self, strings: Iterable[str]) -> "Detector":
        """The same detector with more strings in its vocabulary."""
        wider = copy.copy(self)
        wider._vocabulary = self._vocabulary | set(strings)
        return wider

    def looking_for(self, secrets: Secrets) -> "Detector":
        """A detector of other secrets with the same vocabulary."""
        return Detector(secrets, self._vocabulary, self._is_concept)

    def leaks(self, message: Any, path: str = "message") -> list[Leak]:
        """Everything found in the message; an empty list for a clean one."""
        return list(dict.fromkeys(self._search(message, path)))

    def _search(self, value: Any, path: str) -> Iterator[Leak]:
        if isinstance(value, dict):
            yield from self._numbers(_scalars(value.values()), path)
            for key, item in value.items():
                yield from self._text(key, f"{path} key")
                yield from self._search(item, f"{path}.{key}")
        elif isinstance(value, str):
            yield from self._text(value, path)
        elif isinstance(value, bytes):
            yield from self._bytes(value, path, MAX_NESTING)
        elif isinstance(value, np.ndarray):
            yield from self._numbers(value.astype(np.float64).ravel(), path)
            yield from self._bytes(value.tobytes(), path, MAX_NESTING)
        elif isinstance(value, list | tuple):
            yield from self._numbers(_scalars(value), path)
            for index, item in enumerate(value):
                yield from self._search(item, f"{path}[{index}]")
        elif value is not None and not isinstance(value, int | float):
            raise TypeError(f"{path} holds a {type(value).__name__}: a message is plain data")

    def _text(self, text: str, path: str) -> Iterator[Leak]:
        if text in self._secrets.concepts:
            yield Leak(path, "concept", text)
        if text in self._vocabulary or (_CONCEPT.fullmatch(text) and self._is_concept(text)):
            return
        nested = _parsed(text)
        if nested is not None:
            yield from self._search(nested, f"{path} json")
            return
        yield Leak(path, "text", text[:60])
        for word in sorted(words_of(text) & self._secrets.words):
            yield Leak(path, "words", word)
        yield from self._bytes(text.encode(), path, MAX_NESTING)

    def _bytes(self, data: bytes, path: str, nesting: int) -> Iterator[Leak]:
        lowered = data.lower()
        for word in self._long_words:
            if word in lowered:
                yield Leak(path, "words", word.decode())
        if any(_is_picture(data[at:]) for magic in _MAGIC for at in _positions(data, magic)):
            yield Leak(path, "pixels", "a picture file")
        if nesting == MAX_NESTING:
            for kind in _CORRELATED_VIEWS + _TOKEN_VIEWS:
                width = np.dtype(kind).itemsize
                row = TOKENS_IN_A_ROW_OF_BYTES if width == 1 else TOKENS_IN_A_ROW
                # a header of any length may precede the numbers
                for shift in range(width):
                    usable = len(data) - (len(data) - shift) % width
                    with np.errstate(all="ignore"):
                        view = np.frombuffer(data[shift:usable], dtype=kind).astype(np.float64)
                    yield from self._tokens(view, path, row)
                    if kind in _CORRELATED_VIEWS:
                        yield from self._correlations(view, path)
        if nesting:
            for form, inner in _unpacked(data):
                yield from self._bytes(inner, f"{path} {form}", nesting - 1)

    def _numbers(self, values: Numbers, path: str) -> Iterator[Leak]:
        yield from self._tokens(values, path, TOKENS_IN_A_ROW)
        yield from self._correlations(values, path)

    def _tokens(self, values: Numbers, path: str, row: int) -> Iterator[Leak]:
        if any(_contains(values, gram) for gram in self._grams[row]):
            yield Leak(path, "token ids", f"{row} in a row")

    def _correlations(self, values: Numbers, path: str) -> Iterator[Leak]:
        if len(values) < min((len(template) for template in self._templates), default=1):
            return
        sequence = _Sequence(values)
        for template in self._templates:
            found = template.largest_correlation(sequence)
            if found > CORRELATION:
                yield Leak(path, template.form, f"correlation {found:.2f}")


class _Template:
    """A private tensor, to be found by Pearson's correlation in every window of a sequence of numbers."""

    def __init__(self, form: str, values: Numbers) -> None:
        self.form = form
        centred = values - values.mean()
        self._values = centred / np.linalg.norm(centred)
        self._spectra: dict[int, npt.NDArray[np.complex128]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def largest_correlation(self, sequence: "_Sequence") -> float:
        """The largest absolute correlation over all places; 0 when the sequence is too short."""
        places = len(sequence) - len(self) + 1
        if places < 1:
            return 0.0
        if sequence.size not in self._spectra:
            self._spectra[sequence.size] = np.conj(fft.rfft(self._values, sequence.size))
        products = fft.irfft(sequence.spectrum * self._spectra[sequence.size], sequence.size)[:places]
        scale = sequence.scale(len(self))
        # a constant window has no correlation; its rounding errors must not make one
        valid = scale > 1e-6
        return float(np.abs(products[valid] / scale[valid]).max(initial=0.0))


class _Sequence:
    """Numbers of a message, with what is needed to correlate templates with all their windows."""

    def __init__(self, values: Numbers) -> None:
        # bytes read in a wrong format give any magnitude; the sums below need a bounded one
        bounded = np.clip(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), -1e3, 1e3)
        # few different sizes, so that the spectra of the templates are found again; windows that would wrap
        # around are those that do not fit anyway
        self.size = fft.next_fast_len(-(-len(values) // 8192) * 8192, real=True)
        self.spectrum = fft.rfft(bounded, self.size)
        self._length = len(values)
        self._sums = np.concatenate([[0.0], np.cumsum(bounded)])
        self._squares = np.concatenate([[0.0], np.cumsum(bounded**2)])

    def __len__(self) -> int:
        return self._length

    def scale(self, length: int) -> Numbers:
        """sqrt(length) times the standard deviation of every window of this length."""
        means = (self._sums[length:] - self._sums[:-length]) / length
        variances = (self._squares[length:] - self._squares[:-length]) / length - means**2
        return np.sqrt(np.maximum(variances, 0.0) * length)


def _scalars(values: Iterable[Any]) -> Numbers:
    """The plain numbers among the values, in order."""
    return np.array([value for value in values if isinstance(value, int | float)], dtype=np.float64)


def _flat(array: npt.NDArray[Any]) -> Numbers:
    return np.asarray(array, dtype=np.float64).ravel()


def _layouts(picture: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Rows of pixels, planes of colours, and grey, of a picture [height, width, 3]."""
    return [picture, picture.transpose(2, 0, 1), picture.mean(axis=2)]


def _private_grams(ids: Sequence[int], size: int, public: frozenset[int]) -> Iterator[tuple[int, ...]]:
    for start in range(len(ids) - size + 1):
        gram = tuple(ids[start : start + size])
        if not set(gram) <= public:
            yield gram


def _contains(values: Numbers, gram: tuple[int, ...]) -> bool:
    places = len(values) - len(gram) + 1
    if places < 1:
        return False
    found = np.ones(places, dtype=bool)
    for offset, token in enumerate(gram):
        found &= values[offset : offset + places] == token
    return bool(found.any())


def _parsed(text: str) -> Any:
    """The dict or list that the text is as JSON; None when it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def _positions(data: bytes, part: bytes) -> Iterator[int]:
    at = data.find(part)
    while at >= 0:
        yield at
        at = data.find(part, at + 1)


def _is_picture(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What the bytes hold in base64, hexadecimal, gzip or zlib, wherever it begins."""
    for run in re.findall(rb"[A-Za-z0-9+/_-]{8,}", data):
        standard = run.translate(bytes.maketrans(b"-_", b"+/"))
        for start in range(4):
            part = standard[start:]
            yield "base64", base64.b64decode(part[: len(part) // 4 * 4])
    for run in re.findall(rb"[0-9A-Fa-f]{12,}", data):
        for start in range(2):
            part = run[start:]
            yield "hexadecimal", binascii.unhexlify(part[: len(part) // 2 * 2])
    for form, header, window in (("gzip", b"\x1f\x8b\x08", 31), *(("zlib", h, 15) for h in _ZLIB_HEADERS)):
        for at in _positions(data, header):
            try:
                inner = zlib.decompressobj(window).decompress(data[at:])
            except zlib.error:
                continue
            if inner:
                yield form, inner


_ZLIB_HEADERS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
