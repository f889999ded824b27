"""Output of records."""

import json
from pathlib import Path
from typing import Any


def write(record: dict[str, Any], path: Path | None) -> None:
    """Print a record without its rows, and write all of it to a file.

    Args:
        record: The record.
        path: The file; None writes none.
    """
    print(json.dumps({key: value for key, value in record.items() if key != "rows"}, indent=1))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
