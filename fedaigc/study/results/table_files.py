"""A table of results, written as Markdown for documents, CSV for programs and LaTeX for papers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate

if TYPE_CHECKING:
    from pandas import DataFrame

NONE = "–"
"""The cell of a value that does not exist."""

Align = Literal["left", "right", "centre"]
Cell = str | Estimate
RULES: dict[Align, str] = {"left": ":--", "right": "--:", "centre": ":-:"}
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    # at the start of a row LaTeX would read these as an argument of the preceding line break
    **{character: f"{{{character}}}" for character in "[]*"},
}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: The header, different for every column.
        align: Alignment of the cells.
        digits: Decimals of the estimates.
    """

    header: str
    align: Align = "left"
    digits: int = 3


@dataclass(frozen=True)
class Table:
    """A table of text and estimates; an estimate is shown as "mean [low, high]".

    Attributes:
        columns: The columns.
        rows: The cells of each row.

    Raises:
        ValueError: A row is longer or shorter than the columns, or two columns have the same header.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.columns)} columns")
        headers = [column.header for column in self.columns]
        if len(set(headers)) < len(headers):
            raise ValueError(f"two columns have the same header: {', '.join(headers)}")

    def to_markdown(self) -> str:
        """Return a GitHub table, padded so that it is also readable as plain text."""
        header = [_markdown(column.header) for column in self.columns]
        body = [
            [_markdown(shown(cell, column.digits)) for cell, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]
        widths = [max(3, *(len(line[i]) for line in [header, *body])) for i in range(len(self.columns))]
        rules = [
            RULES[column.align][0] + "-" * (width - 2) + RULES[column.align][-1]
            for column, width in zip(self.columns, widths, strict=True)
        ]
        padded = [
            [
                _padded(text, width, column.align)
                for text, width, column in zip(line, widths, self.columns, strict=True)
            ]
            for line in [header, *body]
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in [padded[0], rules, *padded[1:]])

    def to_pandas(self) -> "DataFrame":
        """Return a data frame; a column "loss" of estimates becomes "loss", "loss low", "loss high" and "loss n".

        A value that does not exist is None there, and empty in the CSV, so that a column of numbers is read as one.
        """
        from pandas import DataFrame

        values: dict[str, list[object]] = {}
        for at, column in enumerate(self.columns):
            cells = [row[at] for row in self.rows]
            values[column.header] = [_value(cell) for cell in cells]
            if any(isinstance(cell, Estimate) for cell in cells):
                for part in ("low", "high", "n"):
                    values[f"{column.header} {part}"] = [getattr(cell, part, None) for cell in cells]
        # no column is converted: a whole number beside a gap would become a float
        return DataFrame(values, dtype=object)

    def to_csv(self) -> str:
        """Return the columns of `to_pandas` as comma-separated values with a header.

        Numbers are exact: a float that is read back is the same float.
        """
        return self.to_pandas().to_csv(index=False, lineterminator="\n")

    def to_latex(self) -> str:
        r"""Return a `tabular` with the rules of booktabs (\usepackage{booktabs}); all text is escaped."""
        from pandas import DataFrame

        body = [
            [
                _latex_estimate(cell, column) if isinstance(cell, Estimate) else _latex(cell)
                for cell, column in zip(row, self.columns, strict=True)
            ]
            for row in self.rows
        ]
        frame = DataFrame(body, columns=[_latex(column.header) for column in self.columns], dtype=object)
        letters = "".join(column.align[0] for column in self.columns)
        return frame.style.hide(axis="index").to_latex(column_format=letters, hrules=True)

    def write(self, path: Path) -> None:
        """Write the table in the format of the suffix: .md, .csv or .tex.

        Raises:
            UserError: The suffix is another one.
        """
        formats = {".md": self.to_markdown, ".csv": self.to_csv, ".tex": self.to_latex}
        if path.suffix not in formats:
            raise UserError(f"{path} ends in {path.suffix!r}: a table is written as {', '.join(formats)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(formats[path.suffix](), encoding="utf-8")


def _value(cell: Cell) -> float | str | None:
    if isinstance(cell, Estimate):
        return cell.mean
    return None if cell == NONE else cell


def shown(cell: Cell, digits: int) -> str:
    """Return a cell as text: an estimate as "mean [low, high]" with `digits` decimals."""
    if isinstance(cell, str):
        return cell
    mean, low, high = (decimals(value, digits) for value in (cell.mean, cell.low, cell.high))
    return f"{mean} [{low}, {high}]"


def decimals(value: float, digits: int) -> str:
    """Format a number with `digits` decimals, without "-0.000"."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _padded(text: str, width: int, align: Align) -> str:
    return {"left": text.ljust, "right": text.rjust, "centre": text.center}[align](width)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}<>|~#&])", r"\\\1", " ".join(text.split()))


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _latex_estimate(cell: Estimate, column: Column) -> str:
    # math mode turns the hyphen of a negative number into a minus sign
    mean, low, high = (f"${decimals(value, column.digits)}$" for value in (cell.mean, cell.low, cell.high))
    return f"{mean} [{low}, {high}]"
