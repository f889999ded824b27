"""The marks of a page: the numbers before each, the positions of generated blocks, and errors."""

import re
import shlex
from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction

# a sign only where a number may begin: "2-16" is 2 and 16. No part of a word: "rank8", "16-QAM", "3x3"
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?<![\d\])])[-−](?=[\d.]))?"
    r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<!\d)\.\d+)(?:e[-+]?\d+)?"
    r"(?!\w|\.\d|,\d{3}|-[A-Za-z])"
)
_WORDS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_WORDS += ["eleven", "twelve"]
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})[\s*_]*$", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:%|per\s+cent)")
_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
# text with numbers that are no figures: code, link targets, addresses
_HIDDEN = re.compile(r"<!--.*?-->|`[^`\n]*`|\]\([^)\s]*\)|https?://\S+|arXiv:\S+", re.DOTALL)
_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s")
_KINDS = "= NAME, about|below|above [X] = NAME, holds NAME, table: NAME, /table, note: ..."


@dataclass(frozen=True)
class Number:
    """A number of the page: its position, its text, and whether a percent sign follows."""

    start: int
    end: int
    text: str
    percent: bool = False


@dataclass(frozen=True)
class Mark:
    """A mark after figures.

    Attributes:
        kind: "=", "about", "below", "above" or "holds".
        bound: The bound in the mark of an "about", "below" or "above". None if the number before the mark is the bound.
        numbers: All numbers that the mark could cover, in the order of the page.
    """

    line: int
    start: int
    kind: str
    bound: Fraction | None
    words: tuple[str, ...]
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Block:
    """A generated block: the text between its two lines, from `start` to `end` of the page."""

    line: int
    start: int
    end: int
    words: tuple[str, ...]
    numbers: int


@dataclass
class Page:
    """A parsed page.

    Attributes:
        others: Numbers outside of generated blocks.
        errors: Line and description of each error.
    """

    name: str
    text: str
    marks: list[Mark] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    others: list[Number] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", self.text))]

    def line_of(self, position: int) -> int:
        """Return the number of the line at a position, from 1."""
        return bisect_right(self._starts, position)


def read_page(name: str, text: str) -> Page:
    """Parse a page."""
    page = Page(name, text)
    shown = _HIDDEN.sub(_blank, text)
    opened: tuple[int, int, tuple[str, ...]] | None = None
    part: tuple[int, int] | None = None  # bounds of the paragraph, item or row being read
    fenced = False

    def close() -> None:
        nonlocal part
        if part is not None:
            _read_part(page, shown, *part)
        part = None

    position = 0
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        start, position = position, position + len(line)
        if _FENCE.match(line):
            close()
            fenced = not fenced
            continue
        if fenced:
            continue
        comment = _COMMENT.match(line.strip())
        inside = comment[1].strip() if comment else ""
        if inside == "/table":
            if opened is None:
                page.errors.append((number, "<!-- /table --> without a <!-- table: NAME --> before it"))
            else:
                found = len(numbers_in(_HIDDEN.sub(_blank, text[opened[1] : start])))
                page.blocks.append(Block(opened[0], opened[1], start, opened[2], found))
            opened = None
        elif inside.startswith("table:"):
            close()
            if opened is not None:
                page.errors.append((opened[0], "the block of this mark has no <!-- /table --> below it"))
            words = _split(page, number, inside.removeprefix("table:"))
            opened = None if words is None else (number, position, words)
        elif opened is None:
            if not line.strip():
                close()
                continue
            alone = line.lstrip().startswith(("|", "#"))
            if alone or _ITEM.match(line):
                close()
            part = (start if part is None else part[0], position)
            if alone:
                close()
    close()
    if opened is not None:
        page.errors.append((opened[0], "the block of this mark has no <!-- /table --> below it"))
    return page


def numbers_in(text: str, offset: int = 0) -> list[Number]:
    """Return the numbers of a text in which code and comments are blank."""
    return [
        Number(
            offset + found.start(), offset + found.end(), found[0], bool(_PERCENT.match(text, found.end()))
        )
        for found in _NUMBER.finditer(text)
    ]


def word_value(text: str) -> int | None:
    """Return the number that a word names: "six" is 6, "none" is 0."""
    return _WORDS.index(text.lower()) if text.lower() in _WORDS else None


def word_of(value: float) -> str | None:
    """Return the word of a number, "none" to "twelve"."""
    return _WORDS[int(value)] if value in range(len(_WORDS)) else None


def _read_part(page: Page, shown: str, start: int, end: int) -> None:
    """Add the marks and numbers of a paragraph, a list item or a table row to the page."""
    numbers = numbers_in(shown[start:end], start)
    page.others += numbers
    last = start
    for comment in _COMMENT.finditer(page.text, start, end):
        at, inside = comment.start(), comment[1].strip()
        line = page.line_of(at)
        if inside.startswith("note:"):
            continue
        begun = page.text.rfind("\n", 0, at) + 1
        if not page.text[begun:at].strip():
            page.errors.append(
                (line, "a mark that begins a line ends the paragraph: put it behind its figure")
            )
        mark = _read_mark(page, line, at, inside)
        if mark is not None:
            kind, bound, words = mark
            before = [number for number in numbers if last <= number.start < at]
            word = _WORD.search(shown[last:at])
            if word is not None and kind == "=":
                before.append(Number(last + word.start(1), last + word.end(1), word[1]))
            page.marks.append(Mark(line, at, kind, bound, words, tuple(before)))
        last = comment.end()
    unclosed = re.search(r"<!--(?!.*?-->)", page.text[start:end], re.DOTALL)
    if unclosed:
        page.errors.append((page.line_of(start + unclosed.start()), "a comment without its -->"))


def _read_mark(
    page: Page, line: int, at: int, inside: str
) -> tuple[str, Fraction | None, tuple[str, ...]] | None:
    if "\n" in inside:
        page.errors.append((line, "a mark stands on one line"))
        return None
    kind, _, rest = inside.partition(" ")
    bound = None
    if kind in ("about", "below", "above"):
        told, equals, rest = rest.partition("=")
        try:
            bound = Fraction(told.strip().replace(",", "")) if told.strip() else None
        except (ValueError, ZeroDivisionError):
            equals = ""
        if not equals:
            page.errors.append((line, f"<!-- {inside} -->: expected e.g. <!-- {kind} 1/4 = NAME -->"))
            return None
    elif kind not in ("=", "holds"):
        page.errors.append((line, f"<!-- {inside:.60} --> is no mark: expected {_KINDS}"))
        return None
    words = _split(page, line, rest)
    return None if words is None else (kind, bound, words)


def _split(page: Page, line: int, text: str) -> tuple[str, ...] | None:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        page.errors.append((line, f"{text.strip()!r} cannot be split into words: {error}"))
        return None
    if not words:
        page.errors.append((line, "a mark without the name of a function"))
        return None
    return words


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])
