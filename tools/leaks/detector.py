"""Detection of private content in the decoded messages that a client sends.

A decoded message consists of dicts, lists, strings, numbers, booleans, None, bytes and numpy arrays. The detector
reports these leaks:

    text        a string that is neither in the closed vocabulary nor a concept id
    concepts    the id of a concept that the policy does not disclose
    words       a private word of at least six letters in bytes, as UTF-8, UTF-16, base64, hexadecimal, gzip,
                zlib, zstd or zip, also nested
    token ids   three consecutive token ids of a private prompt, in any sequence of numbers
    embedding   the text embedding of a private prompt, by correlation
    pixels      a private picture, by correlation, and any PNG, JPEG, GIF, BMP or WebP file
    latents     the autoencoder's latents of a private picture, by correlation

The Pearson correlation is computed between the private tensor and every window of every sequence of numbers in the
message, so that no scale, offset, position or number format hides it.
"""

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .correlation import Numbers, Template, correlated, flat, layouts, scalars
from .unpacking import pictures, unpacked

MIN_WORD_IN_BYTES = 6
TOKENS_IN_A_ROW = 3
# single bytes have only 256 values, so short runs match by chance
TOKENS_IN_A_ROW_OF_BYTES = 5
MAX_NESTING = 3
_CONCEPT = re.compile(r"n\d{8}")
_CORRELATED_VIEWS = ("u1", "i1", "<i2", "<i8", "<f2", "<f4", "<f8")
_TOKEN_VIEWS = ("<u2", "<i4", "<i8")


def in_bytes(word: str) -> tuple[bytes, bytes, bytes]:
    """Return a lower-case word as UTF-8 and as UTF-16 in both byte orders."""
    return word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be")


def words_of(text: str) -> set[str]:
    """Return the words of a text in lower case."""
    return set(re.findall(r"[^\W\d_]+", text.lower()))


@dataclass(frozen=True)
class Secrets:
    """The content that must not leave the device.

    Attributes:
        words: Words of prompts and captions, except disclosed ones.
        concepts: Ids of their concepts, except disclosed ones.
        token_ids: Token ids of each prompt.
        public_ids: Token ids of public words.
        embeddings: Text embeddings of prompts, of any shape.
        pixels: Private pictures [height, width, 3].
        latents: Latents of private pictures, of any shape.
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
    """A leak: its path in the message, its form and its content."""

    path: str
    form: str
    what: str


def private_grams(ids: tuple[int, ...], size: int, public: frozenset[int]) -> Iterator[tuple[int, ...]]:
    """Yield all runs of `size` ids with at least one that is not public."""
    for start in range(len(ids) - size + 1):
        gram = tuple(ids[start : start + size])
        if not set(gram) <= public:
            yield gram


class Detector:
    """Searches messages for private content.

    Args:
        secrets: The content to search for.
        vocabulary: The allowed strings, which do not depend on any prompt: enum values, field names, layer
            names, hashes that the server sent, task ids.
        is_concept: Returns whether the taxonomy has a concept with this id.
    """

    def __init__(
        self, secrets: Secrets, vocabulary: Iterable[str], is_concept: Callable[[str], bool]
    ) -> None:
        self._secrets = secrets
        self._vocabulary = frozenset(vocabulary)
        self._is_concept = is_concept
        long_words = {word for word in secrets.words if len(word) >= MIN_WORD_IN_BYTES}
        self._long_words = sorted(long_words | secrets.concepts)
        self._grams = {
            size: {gram for ids in secrets.token_ids for gram in private_grams(ids, size, secrets.public_ids)}
            for size in (TOKENS_IN_A_ROW, TOKENS_IN_A_ROW_OF_BYTES)
        }
        self._templates = [
            *(Template("embedding", flat(array)) for array in secrets.embeddings),
            *(Template("latents", flat(array)) for array in secrets.latents),
            *(Template("pixels", flat(layout)) for array in secrets.pixels for layout in layouts(array)),
        ]

    def also_allowing(self, strings: Iterable[str]) -> "Detector":
        """Return a detector whose vocabulary also contains `strings`."""
        wider = copy.copy(self)
        wider._vocabulary = self._vocabulary | set(strings)
        return wider

    def looking_for(self, secrets: Secrets) -> "Detector":
        """Return a detector of other secrets with the same vocabulary."""
        return Detector(secrets, self._vocabulary, self._is_concept)

    def leaks(self, message: Any, path: str = "message") -> list[Leak]:
        """Return all leaks in the message."""
        return list(dict.fromkeys(self._search(message, path)))

    def _search(self, value: Any, path: str) -> Iterator[Leak]:
        if isinstance(value, dict):
            yield from self._numbers(scalars(value.values()), path)
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
            yield from self._numbers(scalars(value), path)
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
            if any(form in lowered for form in in_bytes(word)):
                yield Leak(path, "words", word)
        if any(pictures(data)):
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
            for form, inner in unpacked(data):
                yield from self._bytes(inner, f"{path} {form}", nesting - 1)

    def _numbers(self, values: Numbers, path: str) -> Iterator[Leak]:
        yield from self._tokens(values, path, TOKENS_IN_A_ROW)
        yield from self._correlations(values, path)

    def _tokens(self, values: Numbers, path: str, row: int) -> Iterator[Leak]:
        if any(_contains(values, gram) for gram in self._grams[row]):
            yield Leak(path, "token ids", f"{row} in a row")

    def _correlations(self, values: Numbers, path: str) -> Iterator[Leak]:
        for form, found in correlated(self._templates, values):
            yield Leak(path, form, found)


def _contains(values: Numbers, gram: tuple[int, ...]) -> bool:
    places = len(values) - len(gram) + 1
    if places < 1:
        return False
    found = np.ones(places, dtype=bool)
    for offset, token in enumerate(gram):
        found &= values[offset : offset + places] == token
    return bool(found.any())


def _parsed(text: str) -> Any:
    """Return the dict or list that the text encodes as JSON, or None if it encodes none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None
