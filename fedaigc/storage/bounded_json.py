"""JSON from other machines, with bounds on its length, its nesting depth and its numbers.

The bounds hold before anything is made of the text. Python's own parser has none: integers of 4,300 digits
make every sum and product cost the square of their length, and a thousand brackets end in a RecursionError.
"""

import json
import re
from typing import Any

from fedaigc.bounds import MAX_JSON_DEPTH, MAX_NUMBER_CHARACTERS

# a whole string, even without a closing quote, or a bracket
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def read_json(text: object, *, max_characters: int, max_depth: int = MAX_JSON_DEPTH) -> Any:
    """Return the value of a JSON text.

    Infinity and NaN are read as Python writes them; callers that need finite numbers check them. Error
    messages never quote the text.

    Args:
        text: JSON text.
        max_characters: Largest length of the text.
        max_depth: Largest nesting depth.

    Raises:
        ValueError: If `text` is not a string or not JSON, is too long or nests too deep, names a key twice,
            or holds a number of more than 40 characters.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected JSON text, got {type(text).__name__}")
    if len(text) > max_characters:
        raise ValueError(f"a JSON text of {len(text)} characters: expected at most {max_characters}")
    _check_depth(text, max_depth)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_whole, parse_float=_real)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON at character {error.pos}") from None


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for found in _BRACKETS.finditer(text):
        bracket = text[found.start()]
        if bracket in "[{":
            depth += 1
            if depth > max_depth:
                raise ValueError(f"a JSON text with more than {max_depth} levels")
        elif bracket in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key in a JSON object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"a number of {len(digits)} characters: expected at most {MAX_NUMBER_CHARACTERS}")
    return int(digits)


def _real(digits: str) -> float:
    if len(digits) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"a number of {len(digits)} characters: expected at most {MAX_NUMBER_CHARACTERS}")
    return float(digits)
