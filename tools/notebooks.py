"""Execute the notebooks of the documentation: `python -m tools.notebooks` writes their outputs anew.

A notebook is executed in an empty folder, in a kernel of this Python, so that its outputs contain no path.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NAMES = ("first_pictures", "two_processes", "own_strategy", "radio_link", "personal_styles")
TIMEOUT_S = 900
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # a warning with a path, where ipywidgets is not installed
    "PYTHONWARNINGS": "ignore:IProgress not found",
}


def executed(path: Path, folder: Path) -> Any:
    """Return a notebook with the outputs of its cells.

    Args:
        path: The notebook. It is not written to.
        folder: The folder in which its cells run.

    Raises:
        CellExecutionError: If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, **ENVIRONMENT})
    # the version of Python differs between machines
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def texts(cell: Any) -> list[str]:
    """Return the text of each output of a cell: what it printed, or the plain text of its value."""
    found = []
    for output in cell.outputs:
        text = output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        found.append("".join(text))
    return found


def main() -> None:
    """Execute the notebooks that are named, or all, and write their outputs."""
    import nbformat

    for name in sys.argv[1:] or NAMES:
        path = FOLDER / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)


if __name__ == "__main__":
    main()
