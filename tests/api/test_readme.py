"""The Python example of the README runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
)


# once, from the wheel: tests/packaging/test_wheel.py
@pytest.mark.slow
def test_the_example_runs_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = EXAMPLES
    names: dict[str, Any] = {}
    exec(example, names)
    first = names["run"].record.shared_hash
    assert names["image"].size == (64, 64)
    assert len(names["run"].rounds) == 2
    assert "shared_loss" in capsys.readouterr().out
    exec(example, names)
    assert names["run"].record.shared_hash == first
