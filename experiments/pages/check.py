"""Check that the pages state what the records contain.

    python -m experiments.pages.check             # exit status 1 if they differ
    python -m experiments.pages.check --write     # update tables and figures, and list them
    python -m experiments.pages.check --others    # list the numbers that no mark covers
    python -m experiments.pages.check --functions # list the functions that marks can name

For the syntax of marks, see experiments/pages/__init__.py.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, TypeVar

from experiments.edges import figures as edges  # noqa: F401
from experiments.killed import figures as killed  # noqa: F401
from experiments.pages import (  # noqa: F401
    deployment,
    findings,
    model,
    paper,
    strategies,
    studies,
    threats,
    wireless,
)
from experiments.pages.marks import Block, Mark, Number, Page, read_page
from experiments.pages.printed import flat, printed, same, stated
from experiments.pages.records import ROOT
from experiments.pages.registry import figure_of, holds, table_of, usage
from experiments.planner import figures as planner  # noqa: F401
from experiments.sharing import figures as sharing  # noqa: F401
from experiments.sharing import (  # noqa: F401
    group_figures,
    ledger_figures,
)
from experiments.streams import figures as streams  # noqa: F401
from experiments.topologies import figures as topologies  # noqa: F401
from fedaigc.errors import UserError

PAGES = ("README.md", "docs/**/*.md", "strategies/README.md")
ABOUT = 0.15  # largest relative deviation of "about"
T = TypeVar("T")


@dataclass
class Checked:
    """The result of checking a page.

    Attributes:
        figures: Number of compared figures.
        claims: Number of marks without numbers.
        differences: Line and description of each figure that differs from its record.
        errors: Line and description of each error.
        covered: The numbers of marks "=".
        others: The numbers that no mark covers.
        text: The corrected page.
    """

    page: Page
    figures: int = 0
    claims: int = 0
    differences: list[tuple[int, str]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    covered: list[Number] = field(default_factory=list)
    others: list[Number] = field(default_factory=list)
    text: str = ""


def check_page(name: str, text: str) -> Checked:
    """Compare every mark and every generated table of a page with its records."""
    page = read_page(name, text)
    done = Checked(page, errors=list(page.errors))
    edits: list[tuple[int, int, str]] = []
    covered: set[int] = set()
    for mark in page.marks:
        numbers, changed = _check_mark(done, mark)
        covered |= {number.start for number in numbers}
        done.covered += numbers if mark.kind == "=" else ()
        edits += changed
    for block in page.blocks:
        edits += _check_block(done, block)
    done.others = [number for number in page.others if number.start not in covered]
    done.text = text
    for start, end, new in sorted(edits, reverse=True):
        done.text = done.text[:start] + new + done.text[end:]
    done.errors.sort(key=lambda found: found[0])
    done.differences.sort(key=lambda found: found[0])
    return done


def pages_of(patterns: Sequence[str]) -> list[Path]:
    """Return the matching pages, relative to the root, each once.

    Raises:
        UserError: If a pattern has no match.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        matching = sorted(ROOT.glob(pattern))
        if not matching:
            raise UserError(f"no page is called {pattern}: expected a path from the root, e.g. docs/model.md")
        found |= dict.fromkeys(matching)
    return [path.relative_to(ROOT) for path in found]


def _check_mark(done: Checked, mark: Mark) -> tuple[Sequence[Number], list[tuple[int, int, str]]]:
    """Compare a mark, and return the numbers that it covers and the edits that correct them."""
    told = " ".join(mark.words)
    if mark.kind == "holds":
        true = _tried(done, mark.line, lambda: holds(mark.words))
        if true is not None:
            done.claims += 1
        if true is False:
            done.differences.append((mark.line, f"the record does not say that {told} holds"))
        return (), []
    values = _tried(done, mark.line, lambda: flat(figure_of(mark.words)))
    if values is None:
        return (), []
    if mark.kind != "=":
        return _check_bound(done, mark, values), []
    if len(mark.numbers) < len(values) or not values:
        done.errors.append(
            (mark.line, f"{told} gives {len(values)} numbers, and {len(mark.numbers)} stand before the mark")
        )
        return (), []
    taken = mark.numbers[-len(values) :]
    done.figures += len(taken)
    wrong = [(number, value) for number, value in zip(taken, values, strict=True) if not same(value, number)]
    for number, value in wrong:
        exact = f"{value:,.6g}"
        done.differences.append(
            (
                done.page.line_of(number.start),
                f"{number.text} stands there, the record gives {printed(value, number)} ({exact}; {told})",
            )
        )
    return taken, [(number.start, number.end, printed(value, number)) for number, value in wrong]


def _check_bound(done: Checked, mark: Mark, values: Sequence[float]) -> Sequence[Number]:
    """Compare "about", "below" or "above" with its value, and return the number that it covers, if any."""
    told, covered = " ".join(mark.words), mark.numbers[-1:] if mark.bound is None else ()
    if len(values) != 1:
        done.errors.append((mark.line, f"{mark.kind}: {told} gives {len(values)} numbers, expected one"))
        return ()
    if mark.bound is None and not covered:
        done.errors.append((mark.line, f"{mark.kind} = {told}: no number stands before the mark"))
        return ()
    bound = stated(covered[0]) if mark.bound is None else float(mark.bound)
    done.claims += 1
    done.figures += len(covered)
    near = abs(values[0] - bound) <= ABOUT * abs(bound)
    if not {"about": near, "below": values[0] < bound, "above": values[0] > bound}[mark.kind]:
        done.differences.append(
            (mark.line, f"not {mark.kind} {bound:.4g}: the record gives {values[0]:.4g} ({told})")
        )
    return covered


def _check_block(done: Checked, block: Block) -> list[tuple[int, int, str]]:
    new = _tried(done, block.line, lambda: table_of(block.words))
    if new is None:
        return []
    old = done.page.text[block.start : block.end]
    done.figures += block.numbers
    if old == new:
        return []
    before, after = old.splitlines(), new.splitlines()
    for kind, i, i_end, j, j_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for offset in range(max(i_end - i, j_end - j)):
            there = before[i + offset] if i + offset < i_end else "no line"
            given = after[j + offset] if j + offset < j_end else "no line"
            line = block.line + 1 + min(i + offset, i_end)
            done.differences.append((line, f"{there!r} stands there, {block.words[0]} gives {given!r}"))
    return [(block.start, block.end, new)]


def _tried(done: Checked, line: int, action: Callable[[], T]) -> T | None:
    try:
        return action()
    except UserError as error:
        done.errors.append((line, str(error)))
    except (KeyError, TypeError, ValueError, IndexError, StopIteration) as error:
        done.errors.append((line, f"the record is not of the form that was expected: {error!r:.100}"))
    return None


def _arguments(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pages", nargs="*", default=list(PAGES), help="paths from the root; default: all")
    parser.add_argument("--write", action="store_true", help="update tables and figures")
    parser.add_argument("--others", action="store_true", help="list the numbers that no mark covers")
    parser.add_argument("--functions", action="store_true", help="list the functions that marks can name")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    if options.functions:
        print(usage())
        return 0
    try:
        paths = pages_of(options.pages)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    checked = []
    for path in paths:
        done = check_page(str(path), (ROOT / path).read_text(encoding="utf-8"))
        checked.append(done)
        for line, what in done.errors:
            print(f"{path}:{line}: {what}")
        for line, what in done.differences:
            print(f"{path}:{line}: {'written: ' if options.write else ''}{what}")
        if options.write and done.text != done.page.text:
            (ROOT / path).write_text(done.text, encoding="utf-8")
        if options.others:
            for number in done.others:
                at = done.page.line_of(number.start)
                text = done.page.text.splitlines()[at - 1].strip()
                print(f"{path}:{at}: {number.text} in: {text:.110}")
    print(_summary(checked))
    failed = any(done.errors for done in checked)
    left = any(done.differences for done in checked)
    if options.write:
        left = any(check_page(done.page.name, done.text).differences for done in checked)
    return int(failed or left)


def _summary(checked: Sequence[Checked]) -> str:
    width = max(len(done.page.name) for done in checked)
    lines = [f"{'page':<{width}}  figures  claims  differ  errors  other numbers (with decimals)"]
    for done in checked:
        decimals = sum("." in number.text for number in done.others)
        lines.append(
            f"{done.page.name:<{width}}  {done.figures:7}  {done.claims:6}  {len(done.differences):6}  "
            f"{len(done.errors):6}  {len(done.others)} ({decimals})"
        )
    figures, claims, differ, errors = (
        sum(each)
        for each in zip(
            *((done.figures, done.claims, len(done.differences), len(done.errors)) for done in checked),
            strict=True,
        )
    )
    lines.append(
        f"{len(checked)} pages: {figures} figures and {claims} claims checked, {differ} differ, "
        f"{errors} marks are wrong"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
