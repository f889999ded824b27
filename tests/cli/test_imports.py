"""Commands that compute nothing start at once: they load neither torch nor Flower nor diffusers."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fedaigc.device.home.home import Home

WITHOUT = """
import contextlib, sys
from fedaigc.cli.main import main
sys.argv = ["fedaigc", *sys.argv[1:]]
with contextlib.suppress(SystemExit):
    main()
loaded = {"torch", "flwr", "diffusers", "transformers"} & sys.modules.keys()
sys.exit(f"loaded {loaded}" if loaded else 0)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("device", "add-prompt", "home", "an apple on a table"),
        ("device", "add-images", "home", "pictures"),
        ("device", "disclosures", "home"),
        ("disclose", "an apple on a table", "--home", "home"),
    ],
)
def test_a_command_that_computes_nothing_loads_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "a.txt").write_text("a square")
    Home.open(tmp_path / "home", 0)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "error" not in done.stdout
