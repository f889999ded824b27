"""Private pictures: read from folders and data sets, refused by name, stored for the owner only."""

import io
import json
import signal
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from fedaigc.data.pictures.captioned import CaptionedImage
from fedaigc.data.pictures.folder import read_folder
from fedaigc.data.pictures.reading import Reading
from fedaigc.data.pictures.rows import read_rows
from fedaigc.device.add_pictures import add_pictures
from fedaigc.device.home import images
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.errors import UserError
from tests.data.pictures.made import photo


def _picture(shade: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, (shade, 255 - shade, 7))


def test_a_folder_with_a_list_and_sidecars_is_read_in_name_order(tmp_path: Path) -> None:
    for name, shade in (("b.png", 10), ("a.jpg", 200), ("c.webp", 90)):
        _picture(shade).save(tmp_path / name)
    (tmp_path / "captions.jsonl").write_text(
        json.dumps({"file": "b.png", "caption": "a ball on a bed"})
        + "\n\n"
        + json.dumps({"file_name": "a.jpg", "text": "an apple on a table"})
        + "\n"
    )
    (tmp_path / "c.txt").write_text("a cat\ton a chair\n")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    found = list(read_folder(tmp_path))
    assert [item.caption for item in found] == ["an apple on a table", "a ball on a bed", "a cat on a chair"]
    assert all(item.image.size == (8, 6) and item.image.mode == "RGB" for item in found)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("notes.pdf", b"%PDF-1.7", "notes.pdf"),
        ("broken.png", b"\x89PNG\r\n\x1a\n", "broken.png"),
        ("orphan.txt", b"a dog on a bed", "orphan.txt"),
        ("captions.jsonl", b'{"file": "gone.png", "caption": "a dog"}', "gone.png"),
        ("captions.jsonl", b"not json", "captions.jsonl, line 1"),
        ("picture.txt", b"   ", "picture.png"),
        ("picture.txt", b"\xff\xfe\x00", "picture.txt"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    _picture(1).save(tmp_path / "picture.png")
    (tmp_path / "picture.txt").write_text("a ball on a bed")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=named):
        read_folder(tmp_path)


def test_missing_empty_and_uncaptioned_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no pictures"):
        read_folder(tmp_path)
    _picture(1).save(tmp_path / "alone.png")
    with pytest.raises(UserError, match=r"alone\.png has no caption"):
        read_folder(tmp_path)


def test_rows_of_a_data_set_are_read_and_wrong_ones_named() -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    rows = datasets.Dataset.from_dict(
        {"image": [_picture(5)], "caption": ["a bus on a road"]}, features=features
    )
    (item,) = read_rows(rows)
    assert item.caption == "a bus on a road"
    assert item.image.getpixel((0, 0)) == (5, 250, 7)
    with pytest.raises(UserError, match="no column 'text': expected one of caption, image"):
        list(read_rows(rows, caption="text"))
    with pytest.raises(UserError, match="row 0: column 'image' holds str"):
        list(read_rows([{"image": "picture.png", "caption": "a bus"}]))


def test_stored_pictures_keep_every_pixel_and_are_closed_to_others(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    store = ImageStore(home)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert store.add([CaptionedImage(noise, "a ball on a bed")]) == 1
    assert store.add([CaptionedImage(_picture(3), "a bus on a road")]) == 1
    again = ImageStore(Home.open(tmp_path)).all()
    assert [item.caption for item in again] == ["a ball on a bed", "a bus on a road"]
    assert np.array_equal(np.asarray(again[0].image), np.asarray(noise))
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.images.iterdir()} == {0o600}


def test_the_digest_follows_pictures_and_captions(tmp_path: Path) -> None:
    stores = [ImageStore(Home.open(tmp_path / name)) for name in "abc"]
    for store, caption in zip(stores, ("a ball", "a ball", "a bus"), strict=True):
        store.add([CaptionedImage(_picture(3), caption)])
    assert stores[0].digest() == stores[1].digest() != stores[2].digest()


def test_an_error_half_way_adds_nothing(tmp_path: Path) -> None:
    store = ImageStore(Home.open(tmp_path))

    def pictures() -> Iterator[CaptionedImage]:
        yield CaptionedImage(_picture(3), "a bus on a road")
        raise UserError("row 1 does not hold a picture")

    with pytest.raises(UserError):
        store.add(pictures())
    assert len(store) == 0


def test_large_photographs_are_stored_small_and_known_when_they_come_again(tmp_path: Path) -> None:
    folder, store = tmp_path / "photos", ImageStore(Home.open(tmp_path / "home"))
    folder.mkdir()
    for number in range(2):
        photo(400 + number, 300).save(folder / f"{number}.jpg", quality=90)
        photo(400 + number, 300).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a ramp")
    for name in ("0.png", "1.png"):
        (folder / f"{name}.txt").write_text("a drawing")
    added = add_pictures(store, folder, Reading(size=128))
    assert (added.added, added.repeated) == (4, 0)
    assert [path.suffix for path in sorted(store.home.images.glob("0*"))] == [".jpg", ".png", ".jpg", ".png"]
    assert {min(item.image.size) for item in store.all()} == {128}
    again = add_pictures(store, folder, Reading(size=128))
    assert (again.added, again.repeated) == (0, 4)
    store.check_size(128, 192)
    with pytest.raises(UserError, match=r"4 of 4 pictures .* to 128 pixels .*--size 256"):
        store.check_size(256, 320)
    lines = [json.loads(line) for line in (store.home.images / "captions.jsonl").read_text().splitlines()]
    assert lines[0] == {"file": "000000.jpg", "caption": "a ramp", "size": 128}


def test_no_more_than_two_pictures_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen, most = tmp_path / "photos", list[weakref.ref[Image.Image]](), 0
    folder.mkdir()
    for number in range(8):
        photo(64, 48).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"ramp {number}")
    stock = images._encoded

    def counting(picture: CaptionedImage) -> tuple[bytes, str]:
        nonlocal most
        seen.append(weakref.ref(picture.image))
        most = max(most, sum(each() is not None for each in seen))
        return stock(picture)

    monkeypatch.setattr(images, "_encoded", counting)
    assert add_pictures(ImageStore(Home.open(tmp_path / "home")), folder, Reading()).added == len(seen) == 8
    assert most <= 2


def test_pictures_of_any_smaller_size_are_stored_as_they_are(tmp_path: Path) -> None:
    store = ImageStore(Home.open(tmp_path / "home"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    added = add_pictures(store, [{"image": noise, "caption": "noise"}], Reading())
    plain = io.BytesIO()
    noise.save(plain, format="PNG")
    assert (store.home.images / "000000.png").read_bytes() == plain.getvalue()
    assert (
        store.home.images / "captions.jsonl"
    ).read_text() == '{"file": "000000.png", "caption": "noise"}\n'
    assert not added.tally.counts
    assert store.all()[0].image.tobytes() == noise.tobytes()


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    ImageStore(home).add([CaptionedImage(_picture(1), "a ball")])
    code = (
        "import os, signal, sys; from pathlib import Path; from PIL import Image\n"
        "from fedaigc.data.pictures.captioned import CaptionedImage\n"
        "from fedaigc.device.home.home import Home; from fedaigc.device.home.images import ImageStore\n"
        "def pictures():\n"
        "    yield CaptionedImage(Image.new('RGB', (8, 8)), 'a bus')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "ImageStore(Home.open(Path(sys.argv[1]))).add(pictures())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert (home.images / "000001.png").exists()
    assert len(ImageStore(home)) == 1
    assert sorted(path.name for path in home.images.iterdir()) == ["000000.png", "captions.jsonl"]


def test_two_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    begun, go = threading.Event(), threading.Event()

    def slow() -> Iterator[CaptionedImage]:
        begun.set()
        go.wait(10)
        yield CaptionedImage(_picture(1), "a ball")

    first = threading.Thread(target=lambda: ImageStore(home).add(slow()))
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=lambda: ImageStore(home).add([CaptionedImage(_picture(2), "a bus")]))
    second.start()
    go.set()
    first.join(30)
    second.join(30)
    assert [item.caption for item in ImageStore(home).all()] == ["a ball", "a bus"]
    assert len(list(home.images.glob("*.png"))) == 2
