"""The home folder: private to its owner, written atomically, reopened by any process."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fedaigc.device.home.home import MAX_LOG_BYTES, Home, note_error
from fedaigc.errors import DamagedFile, UserError


def _open_to_others(root: Path) -> list[Path]:
    paths = [root, *root.rglob("*")]
    return [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_everything_is_readable_by_the_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        home = Home.open(tmp_path / "nested" / "home")
        home.write(home.gallery / "a.png", b"picture")
        home.write_json(home.folder(home.cache / "folder") / "b.json", [1])
    finally:
        os.umask(before)
    assert _open_to_others(home.root) == []


def test_a_home_that_was_open_to_others_is_closed_when_opened(tmp_path: Path) -> None:
    root = tmp_path / "home"
    root.mkdir(mode=0o755)
    Home.open(root)
    assert _open_to_others(root) == []


def test_write_new_lets_one_writer_win(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    target = home.prompts / "one"
    assert home.write_new(target, b"first")
    assert not home.write_new(target, b"second")
    assert target.read_bytes() == b"first"


def test_seeded_homes_repeat_and_unseeded_ones_differ(tmp_path: Path) -> None:
    assert Home.open(tmp_path / "a", seed=7).seed == 7
    assert Home.open(tmp_path / "a").seed == 7
    assert Home.open(tmp_path / "b").seed != Home.open(tmp_path / "c").seed


@pytest.mark.parametrize("kind", ["file", "foreign folder", "other format", "other seed"])
def test_what_is_no_home_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "place"
    if kind == "file":
        root.write_text("x")
    elif kind == "foreign folder":
        root.mkdir()
        (root / "thesis.doc").write_text("x")
    else:
        home = Home.open(root, seed=1)
        if kind == "other format":
            home.write_json(root / "device.json", {"format": 99, "seed": 1})
    with pytest.raises(UserError, match="place"):
        Home.open(root, seed=2)
    if kind == "foreign folder":
        assert [path.name for path in root.iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "2", "seed": 1}', '{"format": 2, "seed": true}']
)
def test_a_marker_that_is_none_is_damaged(tmp_path: Path, content: str) -> None:
    Home.open(tmp_path)
    (tmp_path / "device.json").write_text(content)
    with pytest.raises(DamagedFile, match=r"device\.json is damaged"):
        Home.open(tmp_path)


def test_another_process_reads_what_this_one_wrote(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home", seed=3)
    home.write_json(home.gallery / "x.json", {"ü": [1, 2]})
    script = (
        "import json, sys; from pathlib import Path; from fedaigc.device.home.home import Home; "
        "home = Home.open(Path(sys.argv[1])); "
        "print(json.dumps([home.seed, home.read_json(home.gallery / 'x.json')]))"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(home.root)], capture_output=True, check=True)
    assert json.loads(answer.stdout) == [3, {"ü": [1, 2]}]


def test_errors_are_kept_for_the_owner_only_and_do_not_fill_the_disk(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    note_error(home.root, "cannot parse 'a shiny apple'\n")
    assert "shiny" in (home.root / "errors.log").read_text()
    for _ in range(4):
        note_error(home.root, "x" * MAX_LOG_BYTES)
    assert sum(path.stat().st_size for path in home.root.glob("errors*")) <= 4 * MAX_LOG_BYTES
    assert _open_to_others(home.root) == []
    note_error(tmp_path / "nowhere", "no such home")
    assert not (tmp_path / "nowhere").exists()
