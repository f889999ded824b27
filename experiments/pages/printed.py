"""The printed form of a record's value: the decimals and the style of the number in a page."""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from experiments.pages.marks import Number, word_of, word_value
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate


def flat(value: Any) -> list[float]:
    """Return the numbers in the result of a function: a number, an Estimate (mean, low, high), or several of them.

    Raises:
        UserError: If the result is anything else, or contains a value that is not finite.
    """
    if isinstance(value, Estimate):
        return flat((value.mean, value.low, value.high))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"the record gives {value}, which no page can print")
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return [each for one in value for each in flat(one)]
    raise UserError(f"expected a number, an estimate or several of them, the record gives {value!r:.60}")


def printed(value: float, like: Number) -> str:
    """Return `value` in the format of `like`, as the page would print it there."""
    if word_value(like.text) is not None:
        word = word_of(value) or f"{value:g}"
        return word.capitalize() if like.text[0].isupper() else word
    body = like.text.replace("−", "-").replace(",", "")
    exact = Decimal(value) * (100 if like.percent else 1)  # of the exact float, as in Python's format
    exponent = Decimal(body).as_tuple().exponent
    assert isinstance(exponent, int)
    rounded = exact.quantize(Decimal(1).scaleb(exponent))
    if "e" in body:
        return f"{rounded:e}".replace("e+", "e")
    text = f"{abs(rounded):,f}" if "," in like.text or abs(rounded) >= 10_000 else f"{abs(rounded):f}"
    if body.lstrip("-").startswith("."):
        text = text.removeprefix("0") or "0"
    minus = "−" if "−" in like.text else "-"
    return (minus if rounded < 0 else "") + text


def stated(number: Number) -> float:
    """Return the value that a page states."""
    word = word_value(number.text)
    value = float(number.text.replace("−", "-").replace(",", "")) if word is None else float(word)
    return value / 100 if number.percent else value


def same(value: float, number: Number) -> bool:
    """Return whether the page prints `value`, rounded to the decimals that it prints."""
    word = word_value(number.text)
    if word is not None:
        return value == word
    plain = number.text.replace("−", "-").replace(",", "")
    expected = printed(value, number).replace("−", "-").replace(",", "")
    return Decimal(plain) == Decimal(expected)
