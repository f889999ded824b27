"""The list of a folder of pictures: captions.jsonl, or metadata.jsonl, .csv or .parquet as `datasets` reads them."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaigc.data.pictures.captions import lines_of, text_of
from fedaigc.data.pictures.reading import BrokenPicture, Reading, Tally
from fedaigc.errors import UserError

CAPTIONS = "captions.jsonl"
_FILE_KEYS = ("file", "file_name")
_DEFAULT_KEYS = ("caption", "text")


@dataclass(frozen=True)
class Entry:
    """What a list says about a file.

    Attributes:
        file: The name of the file, as it is written.
        caption: What stands for its caption; None if there is no key of captions.
        columns: Everything else.
        where: The list and the line.
        list: The list.
    """

    file: str
    caption: Any
    columns: Mapping[str, Any]
    where: str
    list: Path


def entries_of(folder: Path, reading: Reading, tally: Tally) -> Iterator[Entry]:
    """Yield what the lists of a folder say.

    Raises:
        UserError: If a list cannot be read.
        BrokenPicture: If a line of it is wrong.
    """
    for name, rows in LISTS.items():
        path = folder / name
        if path.is_file():
            for where, row in rows(path, reading, tally):
                with tally.skipping(reading):
                    yield _entry(row, where, path, reading)


def _entry(row: Mapping[str, Any], where: str, path: Path, reading: Reading) -> Entry:
    rest = dict(row)
    file = next((rest.pop(key) for key in _FILE_KEYS if rest.get(key) is not None), None)
    if not isinstance(file, str | int) or isinstance(file, bool):
        raise BrokenPicture(f'{where}: expected {{"file": "cat.png", "caption": "a cat on a sofa"}}')
    asked = reading.caption_column
    keys = _DEFAULT_KEYS if asked == _DEFAULT_KEYS[0] else (asked,)
    key = next((key for key in keys if key in rest), None)
    if key is None and reading.sub_folders != "classes":
        raise BrokenPicture(
            f"{where} has no {' or '.join(map(repr, keys))}: expected a caption; name its column, one of "
            f"{', '.join(sorted(rest)) or 'none'}"
        )
    caption = rest.pop(key) if key is not None else None
    return Entry(str(file), caption, rest, where, path)


def _json_lines(path: Path, reading: Reading, tally: Tally) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines_of(text_of(path)), start=1):
        if not line.strip():
            continue
        with tally.skipping(reading):
            yield f"{path}, line {number}", _json_object(line, f"{path}, line {number}")


def _json_object(line: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, _Twice):
            raise BrokenPicture(f"{where}: {error}") from None
        found = None
    if not isinstance(found, dict):
        raise BrokenPicture(f'{where}: expected {{"file": "cat.png", "caption": "a cat on a sofa"}}')
    return found


class _Twice(ValueError):
    """A key that stands twice in one object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    for key in found:
        if [name for name, _ in pairs].count(key) > 1:
            raise _Twice(f"the key {key!r} stands there twice; give several captions as a list")
    return found


def _csv(path: Path, reading: Reading, tally: Tally) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # newline="": a quoted field may hold line breaks
    rows = csv.DictReader(io.StringIO(text_of(path), newline=""))
    try:
        if not set(_FILE_KEYS) & set(rows.fieldnames or ()):
            raise UserError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'none'}: expected file_name and a "
                "caption, separated by commas"
            )
        for row in rows:
            # a row that is too short or too long
            surplus = row.pop(None, None)
            where = f"{path}, line {rows.line_num}"
            with tally.skipping(reading):
                if surplus:
                    raise BrokenPicture(
                        f"{where} has more fields than the first line: put texts with commas in quotes"
                    )
                yield where, {key: value or None for key, value in row.items()}
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not CSV: {error}") from None


def _parquet(path: Path, reading: Reading, tally: Tally) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file: {error!s:.100}") from None
    for number, row in enumerate(rows):
        yield f"{path}, row {number}", row


LISTS: dict[str, Callable[[Path, Reading, Tally], Iterator[tuple[str, Mapping[str, Any]]]]] = {
    CAPTIONS: _json_lines,
    "metadata.jsonl": _json_lines,
    "metadata.csv": _csv,
    "metadata.parquet": _parquet,
}
