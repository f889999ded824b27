"""`fedaigc partition` as a user runs it."""

from pathlib import Path

from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from tests.cli.conftest import RunCommand
from tests.own_pictures import write_pictures


def test_own_pictures_are_divided_and_the_table_says_how(fedaigc: RunCommand, tmp_path: Path) -> None:
    pictures, homes = write_pictures(tmp_path / "pictures", label="shape"), tmp_path / "homes"
    options = ("--clients", "3", "--kind", "dirichlet", "--alpha", "0.3", "--label-column", "shape")
    done = fedaigc("partition", str(homes), str(pictures), *options)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "homes/0" in line]
    assert len(lines) == 3
    for client, line in enumerate(lines):
        home, total, *counts = (cell.strip() for cell in line.strip("│ ").split("│"))
        captions = [each.caption for each in ImageStore(Home.open(Path(home))).all()]
        assert home == str(homes / f"{client:02d}")
        assert len(captions) == int(total) > 0
        named = [sum(shape in caption for caption in captions) for shape in ("bar", "circle", "square")]
        assert named == list(map(int, counts))
    assert sum(int(line.strip("│ ").split("│")[1]) for line in lines) == 60

    again = fedaigc("partition", str(homes), str(pictures), *options)
    assert again.returncode == 2
    assert "already exists" in again.stderr
    wrong = fedaigc("partition", str(tmp_path / "new"), str(pictures), "--label-column", "size")
    assert wrong.returncode == 2
    assert "no column 'size' for labels: expected one of theirs (shape)" in wrong.stderr
    assert not (tmp_path / "new").exists()
