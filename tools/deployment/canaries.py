"""Search for canaries (unique words and patterns) in captured traffic, logs and files.

The search reports canaries in these forms:

    plain, UTF-16           a word, in upper or lower case
    base64, hexadecimal,    a word in an encoded or compressed part at any position. For nested forms, the
    gzip, zlib, zstd, zip   outermost is reported.
    token ids               three consecutive ids of a prompt, at least one of a canary, as numbers of any width
    embedding, latents      of prompts and pictures, by correlation (see `tools.leaks.correlation`)
    pixels                  in rows, planes or grey, by correlation
    PNG, JPEG, ...          any picture file, with its correlation with the canaries

Numbers are searched for as bytes of every common format at every offset, as decoded values, and in decimal notation
in a text.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tools.leaks.correlation import Numbers, Template, correlated, flat, layouts, scalars
from tools.leaks.detector import (
    MAX_NESTING,
    TOKENS_IN_A_ROW,
    TOKENS_IN_A_ROW_OF_BYTES,
    in_bytes,
    private_grams,
)
from tools.leaks.unpacking import pictures, unpacked

_CORRELATED_VIEWS = ("u1", "i1", "<i2", "<f2", "<f4", "<f8")
_TOKEN_VIEWS = ("<u2", "<i4", "<i8", "<f4", "<f8", ">u2", ">i4", ">i8")
_DATABASE_HEADER = b"SQLite format 3\x00"
_PRINTED_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Canaries:
    """The content to search for.

    Attributes:
        words: The words.
        token_ids: Token ids of each prompt.
        public_ids: Token ids of words that are not canaries.
        embeddings: Text embeddings of prompts, of any shape.
        pixels: Pictures [height, width, 3].
        latents: Latents of pictures, of any shape.
    """

    words: frozenset[str]
    token_ids: tuple[tuple[int, ...], ...] = ()
    public_ids: frozenset[int] = frozenset()
    embeddings: tuple[npt.NDArray[Any], ...] = ()
    pixels: tuple[npt.NDArray[Any], ...] = ()
    latents: tuple[npt.NDArray[Any], ...] = ()


@dataclass(frozen=True)
class Found:
    """An occurrence of a canary: its path, its form and its content."""

    path: str
    form: str
    what: str


class Search:
    """Searches for canaries, and skips bytes that it has searched before."""

    def __init__(self, canaries: Canaries) -> None:
        self._words = [(word, *in_bytes(word.lower())) for word in sorted(canaries.words)]
        grams = {
            gram
            for ids in canaries.token_ids
            for gram in private_grams(ids, TOKENS_IN_A_ROW, canaries.public_ids)
        }
        long_grams = {
            gram
            for ids in canaries.token_ids
            for gram in private_grams(ids, TOKENS_IN_A_ROW_OF_BYTES, canaries.public_ids)
            if max(gram) < 256
        }
        self._tokens = [np.array(gram, view).tobytes() for gram in grams for view in _TOKEN_VIEWS]
        self._tokens += [bytes(gram) for gram in long_grams]
        self._token_values = [np.array(gram, np.float64).tobytes() for gram in grams]
        self._pixels = canaries.pixels
        self._templates = [
            *(Template("embedding", flat(array)) for array in canaries.embeddings),
            *(Template("latents", flat(array)) for array in canaries.latents),
            *(Template("pixels", flat(layout)) for array in canaries.pixels for layout in layouts(array)),
        ]
        self._shortest = min((len(template) for template in self._templates), default=None)
        self._searched: set[bytes] = set()

    def values(self, value: Any, path: str) -> list[Found]:
        """Search dicts, lists, strings, numbers, bytes and arrays."""
        return list(dict.fromkeys(self._plain(value, path)))

    def raw(self, data: bytes, path: str) -> list[Found]:
        """Search bytes of any kind."""
        return list(dict.fromkeys(self._bytes(data, path, MAX_NESTING, "")))

    def files(self, folder: Path, path: str) -> list[Found]:
        """Search every file below a folder, including rows of databases and numbers in texts."""
        found: list[Found] = []
        for file in sorted(folder.rglob("*")):
            if not file.is_file():
                continue
            name = f"{path}/{file.relative_to(folder)}"
            found += self.raw(str(file.relative_to(folder)).encode(), f"{name} name")
            data = file.read_bytes()
            found += self.raw(data, name)
            if data.startswith(_DATABASE_HEADER):
                found += self.values(list(_rows(file)), name)
            else:
                found += self._printed(data, name)
        return found

    def _printed(self, data: bytes, path: str) -> list[Found]:
        try:
            return list(self._numbers_in_text(data.decode(), path))
        except UnicodeDecodeError:
            return []

    def _plain(self, value: Any, path: str) -> Iterator[Found]:
        if isinstance(value, dict):
            yield from self._numbers(scalars(value.values()), path)
            for key, item in value.items():
                yield from self._plain(str(key), f"{path} key")
                yield from self._plain(item, f"{path}.{key}")
        elif isinstance(value, list | tuple):
            yield from self._numbers(scalars(value), path)
            for index, item in enumerate(value):
                yield from self._plain(item, f"{path}[{index}]")
        elif isinstance(value, str):
            yield from self._bytes(value.encode(), path, MAX_NESTING, "")
            yield from self._numbers_in_text(value, path)
        elif isinstance(value, bytes):
            yield from self._bytes(value, path, MAX_NESTING, "")
        elif isinstance(value, np.ndarray):
            yield from self._bytes(value.tobytes(), path, MAX_NESTING, "")
            yield from self._numbers(value.astype(np.float64).ravel(), path)
        elif value is not None and not isinstance(value, int | float):
            raise TypeError(f"{path} holds a {type(value).__name__}: only plain data can be searched")

    def _bytes(self, data: bytes, path: str, nesting: int, outer: str) -> Iterator[Found]:
        if data in self._searched:
            return
        if nesting == MAX_NESTING and len(data) > 256:
            self._searched.add(data)
        lowered = data.lower()
        for word, *forms in self._words:
            if forms[0] in lowered:
                yield Found(path, outer or "plain", word)
            if any(form in lowered for form in forms[1:]):
                yield Found(path, outer or "UTF-16", word)
        if any(gram in data for gram in self._tokens):
            yield Found(path, "token ids", f"{TOKENS_IN_A_ROW} in a row")
        for format, picture in pictures(data):
            yield Found(path, format, f"a picture, correlation {self._likeness(picture):.2f}")
        if self._shortest is not None and len(data) >= self._shortest:
            for view in _views(data):
                yield from self._correlations(view, path)
        if nesting:
            for form, inner in unpacked(data):
                yield from self._bytes(inner, path, nesting - 1, outer or form)

    def _numbers_in_text(self, text: str, path: str) -> Iterator[Found]:
        yield from self._numbers(np.array([float(n) for n in _PRINTED_NUMBER.findall(text)]), path)

    def _numbers(self, values: Numbers, path: str) -> Iterator[Found]:
        as_bytes = np.ascontiguousarray(values, np.float64).tobytes()
        if any(gram in as_bytes for gram in self._token_values):
            yield Found(path, "token ids", f"{TOKENS_IN_A_ROW} in a row")
        yield from self._correlations(values, path)

    def _correlations(self, values: Numbers, path: str) -> Iterator[Found]:
        for form, found in correlated(self._templates, values):
            yield Found(path, form, found)

    def _likeness(self, picture: Image.Image) -> float:
        """Return the largest correlation of a picture with those of the canaries, in grey and at their size."""
        return max((_correlation(picture, canary) for canary in self._pixels), default=0.0)


def _views(data: bytes) -> Iterator[Numbers]:
    """Yield the bytes as numbers of every width from every offset, since a header of any length may precede them."""
    for kind in _CORRELATED_VIEWS:
        width = np.dtype(kind).itemsize
        for shift in range(width):
            usable = len(data) - (len(data) - shift) % width
            with np.errstate(all="ignore"):
                yield np.frombuffer(data[shift:usable], dtype=kind).astype(np.float64)


def _correlation(picture: Image.Image, canary: npt.NDArray[Any]) -> float:
    height, width, _ = canary.shape
    shown = np.asarray(picture.resize((width, height)), dtype=np.float64).mean(axis=2).ravel()
    wanted = canary.astype(np.float64).mean(axis=2).ravel()
    if shown.std() == 0 or wanted.std() == 0:
        return 0.0
    return abs(float(np.corrcoef(shown, wanted)[0, 1]))


def _rows(database: Path) -> Iterator[list[Any]]:
    """Yield every row of every table, with the name of the table."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield [table, *row]
