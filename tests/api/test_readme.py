"""The Python example of the README runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
)


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = EXAMPLES
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["image"].size == (64, 64)
    assert len(names["run"].rounds) == 2
    assert "shared_loss" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_runs_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = EXAMPLES
    found = []
    for _ in range(2):
        names: dict[str, Any] = {}
        exec(example, names)
        found.append(names["run"].record.shared_hash)
    assert found[0] == found[1]
