"""Notebooks as pages: what their cells say, their code, and their output as far as it is text or a picture."""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = "notebooks"
# the order in which to read them; others follow by name
ORDER = ("first_pictures", "two_processes", "own_strategy", "radio_link", "personal_styles")


def notebook_section(docs: Path) -> list[dict[str, str]]:
    """Return the entries of the notebooks in the navigation."""
    return [{_title(path): f"{FOLDER}/{path.stem}.md"} for path in _notebooks(docs)]


def notebook_pages(docs: Path) -> dict[str, str]:
    """Return the pages of the notebooks, by their names in the site."""
    return {f"{FOLDER}/{path.stem}.md": as_markdown(path) for path in _notebooks(docs)}


def as_markdown(path: Path) -> str:
    """Return a notebook as a page, with a link to the notebook below its title."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join(filter(None, map(_cell, cells))) + "\n"
    link = f"[Download this notebook]({path.name})"
    title = re.match(r"# .*\n", text)
    return f"{title[0]}\n{link}\n{text[title.end() :]}" if title else f"# {path.stem}\n\n{link}\n\n{text}"


def _notebooks(docs: Path) -> list[Path]:
    order = {name: place for place, name in enumerate(ORDER)}
    return sorted(
        (docs / FOLDER).glob("*.ipynb"), key=lambda path: (order.get(path.stem, len(order)), path.stem)
    )


def _title(path: Path) -> str:
    title = re.match(r"# (.*)\n", as_markdown(path))
    return title[1].strip() if title else path.stem


def _cell(cell: dict[str, Any]) -> str:
    source = _text(cell["source"]).strip()
    if cell["cell_type"] != "code":
        return source
    shown = [f"```python\n{source}\n```"] if source else []
    return "\n\n".join([*shown, *filter(None, map(_output, cell.get("outputs", ())))])


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        picture = "".join(_text(data["image/png"]).split())
        return f'<img alt="Output of the cell" src="data:image/png;base64,{picture}">'
    text = _text(output.get("text") or data.get("text/plain") or "").rstrip()
    return f"````text\n{text}\n````" if text else ""


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)
