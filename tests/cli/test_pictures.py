"""Pictures into a home by the command line: what was done to them is told, and what is broken is named."""

from pathlib import Path

from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from tests.cli.conftest import RunCommand
from tests.data.pictures.made import cut, photo


def test_the_summary_counts_what_was_done_and_what_was_left_out(fedaigc: RunCommand, tmp_path: Path) -> None:
    folder, home = tmp_path / "pictures", tmp_path / "home"
    (folder / "cat").mkdir(parents=True)
    photo(400, 300).save(folder / "cat" / "large.jpg")
    clear = photo(64, 48)
    clear.putalpha(0)
    clear.save(folder / "cat" / "clear.png")
    (folder / "cat" / "cut.png").write_bytes(cut())
    options = ("--sub-folders", "classes", "--size", "128", "--background", "black")
    refused = fedaigc("device", "add-images", str(home), str(folder), *options)
    assert refused.returncode == 2
    assert "cut.png is cut short" in refused.stderr
    assert "--skip-broken" in refused.stderr
    assert not len(ImageStore(Home.open(home)))
    done = fedaigc("device", "add-images", str(home), str(folder), *options, "--skip-broken")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"2 pictures added to {home}"
    assert "  1 with transparency, put on black" in lines
    assert "  1 larger than 128 pixels on the short side, made smaller" in lines
    assert "  1 left out:" in lines
    found = ImageStore(Home.open(home)).all()
    assert [item.caption for item in found] == ["cat", "cat"]
    assert found[0].image.getpixel((0, 0)) == (0, 0, 0)
    assert min(found[1].image.size) == 128
