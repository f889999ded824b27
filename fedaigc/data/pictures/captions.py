"""Captions as other people write them: texts, lists of texts, and files of text."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedaigc.data.pictures.reading import BrokenPicture
from fedaigc.errors import UserError
from fedaigc.validation import checked_prompt, decoded_text

# a line of text ends here, and not at the further characters of str.splitlines
_LINE_END = re.compile(r"\r\n|\r|\n")


def captions_of(value: Any, where: Path | str) -> tuple[str, ...]:
    """Return the captions of a picture: one for a text or a number, several for a list of texts.

    Args:
        value: What a data set or a list says.
        where: Where it says so, for the error message.

    Raises:
        BrokenPicture: If it is empty, or neither a text nor a list of texts.
    """
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        value = value.tolist()
    if isinstance(value, list | tuple):
        if not value:
            raise BrokenPicture(f"{where} has no caption: its list of captions is empty")
        found = [_caption(each, f"{where}, number {place}") for place, each in enumerate(value, start=1)]
        return tuple(dict.fromkeys(found))
    return (_caption(value, where),)


def captions_in(path: Path, picture: Path) -> tuple[str, ...]:
    """Return the captions of a picture in a text file: one a line, without empty lines.

    Raises:
        BrokenPicture: If it holds no text.
    """
    lines = [line for line in _LINE_END.split(text_of(path)) if line.strip()]
    return captions_of(lines if lines[1:] else "".join(lines), picture)


def text_of(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        BrokenPicture: If it is not in UTF-8, and no mark says UTF-16.
    """
    try:
        return decoded_text(path.read_bytes())
    except OSError as error:
        raise BrokenPicture(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise BrokenPicture(f"{path} is not a UTF-8 text file: save it as UTF-8") from None


def lines_of(text: str) -> list[str]:
    """Return the lines of a file of JSON lines, which end in a line feed and in nothing else."""
    return text.split("\n")


def _caption(value: Any, where: Path | str) -> str:
    if isinstance(value, bytes):
        try:
            value = decoded_text(value)
        except ValueError:
            raise BrokenPicture(f"the caption of {where} is not UTF-8 text") from None
    if value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType":
        raise BrokenPicture(f"{where} has no caption: fill it in, or remove the picture")
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str):
        raise BrokenPicture(f"the caption of {where} is {_kind(value)}: expected a text, or a list of texts")
    try:
        return checked_prompt(value)
    except UserError as error:
        raise BrokenPicture(f"the caption of {where}: {error}") from None


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(str, value))}"[:100]
    return f"of the type {type(value).__name__}"
