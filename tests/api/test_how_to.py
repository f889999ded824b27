"""The Python blocks of the how-to pages run as they stand, in order, from an empty folder."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from fedaigc.cli.main import main

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["rounds.md", "edges.md", "radio.md", "data.md", "scores.md", "../planner.md"]
)
def test_the_examples_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        path = tmp_path / "my_pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(path)
        with (path.parent / "captions.jsonl").open("a", encoding="utf-8") as file:
            file.write(f'{{"file_name": "{path.name}", "text": "a dog", "label": "{number % 2}"}}\n')
    script = tmp_path / "script.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")


def test_the_strategy_in_a_file_is_planned_with_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "half_way.py").write_text(blocks("strategy.md", "python")[1], encoding="utf-8")
    (tmp_path / "study.toml").write_text(blocks("strategy.md", "toml")[0], encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["fedaigc", "compare", str(tmp_path / "study.toml"), "--list"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("half way") == 4
