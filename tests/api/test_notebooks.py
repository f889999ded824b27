"""The notebooks of the documentation run, and their committed outputs are those of their code."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tools.notebooks import FOLDER, NAMES, executed, texts


def read(name: str) -> Any:
    import nbformat

    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_all_notebooks_are_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_complete_and_private(name: str) -> None:
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not (output.output_type == "stream" and output.name == "stderr"), output.text
    # a cell that ends with a value, `show` or `print` has an output
    shown = [cell for cell in cells if re.search(r"^(show|print)\(|^\w+$", cell.source, flags=re.MULTILINE)]
    assert shown
    assert all(cell.outputs for cell in shown)
    text = json.dumps([cell.outputs for cell in cells])
    assert str(Path.home()) not in text
    assert not re.search(r'"[^"]*(/(tmp|home|root|Users|work)/|site-packages)', text)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_one_import_is_enough(name: str) -> None:
    source = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    found = set(re.findall(r"^\s*(?:from|import) ([\w.]+)", source, flags=re.MULTILINE))
    assert {module for module in found if module.startswith("fedaigc")} == {"fedaigc"}
    assert not re.search(r"^\s*from fedaigc", source, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the kernel finds this package and not an installed one
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))))
    done = executed(FOLDER / f"{name}.ipynb", tmp_path)
    for cell, new in zip(read(name).cells, done.cells, strict=True):
        if cell.cell_type == "code":
            assert stable(new) == stable(cell), cell.source


def stable(cell: Any) -> list[str]:
    """Return what a cell printed, and its tables without numbers: bytes and losses differ a little between machines."""
    kinds = [output.output_type for output in cell.outputs]
    return [
        re.sub(r"\b[0-9a-f]{12,}\b", "HASH", text)
        if kind == "stream"
        else " ".join(re.sub(r"[0-9a-f]*\d[0-9a-f.]*", "0", text).split())
        for kind, text in zip(kinds, texts(cell), strict=True)
    ]
