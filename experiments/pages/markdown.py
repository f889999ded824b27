"""Tables of the pages as Markdown, without padding: a change of one figure is a change of one line."""

import re
from collections.abc import Mapping, Sequence

from fedaigc.metrics.intervals import Estimate
from fedaigc.study.results.table_files import Table, decimals, shown


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; a pipe in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"|{''.join(_cell(cell) for cell in line)}\n" for line in lines)


def _cell(text: str) -> str:
    escaped = text.replace("|", r"\|")
    return f" {escaped} |" if text else " |"


def selected(table: Table, headers: Sequence[str], names: Mapping[str, str] | None = None) -> str:
    """Return some columns of a table of the comparison, in this order, with the headers of a page."""
    places = [[column.header for column in table.columns].index(header) for header in headers]
    rows = [[shown(row[at], table.columns[at].digits) for at in places] for row in table.rows]
    return markdown([(names or {}).get(header, header) for header in headers], rows)


def share(value: Estimate | float, digits: int = 2) -> str:
    """Format a share without its leading zero: ".63", or ".63 [.54, .72]"."""
    text = decimals(value, digits) if isinstance(value, float | int) else shown(value, digits)
    return re.sub(r"\b0\.", ".", text)
