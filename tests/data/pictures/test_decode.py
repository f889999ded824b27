"""Pictures by what their values mean, and by name what is none."""

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from fedaigc.data.pictures.decode import decoded, loaded, read_picture
from fedaigc.data.pictures.reading import (
    BAD_PROFILE,
    DEEP,
    FIRST_FRAME,
    OBLONG,
    PROFILE,
    REDUCED,
    TRANSPARENT,
    BrokenPicture,
    Reading,
    Tally,
)
from fedaigc.data.pictures.rgb import fitted, rgb
from fedaigc.errors import UserError
from tests.data.pictures.made import chunk, cut, photo, png, saved


def read(data: bytes, reading: Reading = Reading(size=0)) -> tuple[np.ndarray, dict[str, int]]:  # noqa: B008
    tally = Tally()
    found = decoded(data, reading, tally, "it.png").image
    assert found.mode == "RGB"
    long = tally.counts.pop(OBLONG, 0)
    assert long == (max(found.size) > 1.2 * min(found.size))
    return np.asarray(found), dict(tally.counts)


def hidden_noise() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (6, 6, 4), dtype=np.uint8)
    values[..., 3] = 0
    values[:3, :3] = (200, 10, 20, 255)
    values[3:, 3:] = (0, 0, 0, 128)
    return values


@pytest.mark.parametrize(("name", "behind"), [("white", 255), ("#404040", 64)])
def test_hidden_colours_are_put_on_the_background(name: str, behind: int) -> None:
    found, counts = read(saved(Image.fromarray(hidden_noise())), Reading(background=name, size=0))
    assert (found[:3, :3] == (200, 10, 20)).all()
    assert (found[:3, 3:] == behind).all()
    assert abs(found[4, 4].astype(int) - round(behind * 127 / 255)).max() <= 1
    assert counts == {TRANSPARENT: 1}


def test_other_ways_of_transparency_are_put_on_the_background() -> None:
    grey = Image.fromarray(np.full((6, 6), 90, np.uint8))
    grey.putalpha(Image.fromarray(np.zeros((6, 6), np.uint8)))
    palette = Image.fromarray(np.zeros((6, 6), np.uint8), "P")
    palette.putpalette([9, 9, 9, 77, 77, 77])
    deep = Image.fromarray(np.full((6, 6), 500, np.uint16))
    files = [
        saved(grey),
        saved(palette, transparency=0),
        saved(Image.new("RGB", (6, 6), (1, 2, 3)), transparency=(1, 2, 3)),
        saved(deep, transparency=500),
        saved(palette, "GIF", transparency=0),
    ]
    for number, data in enumerate(files):
        found, counts = read(data)
        assert (found == 255).all(), number
        assert counts[TRANSPARENT] == 1


def test_opaque_pictures_keep_every_pixel_and_are_not_counted() -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    values[..., 3] = 255
    plain = Image.fromarray(values[..., :3])
    assert rgb(plain) is plain
    for image in (Image.fromarray(values), plain):
        found, counts = read(saved(image), Reading())
        assert np.array_equal(found, values[..., :3])
        assert counts == {}


def test_deep_values_are_scaled_by_the_range_of_their_type() -> None:
    shades = np.array([[0, 257 * 100, 65535]], np.uint16)
    deep = Image.fromarray(shades)
    pgm = b"P5\n3 1\n65535\n" + shades.astype(">u2").tobytes()
    floats = Image.fromarray((shades / 65535).astype(np.float32))
    for data in (saved(deep), saved(deep, "TIFF"), pgm, saved(floats, "TIFF")):
        found, counts = read(data)
        assert found[0, :, 0].tolist() == [0, 100, 255]
        assert counts == {DEEP: 1}


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_values_of_no_known_range_are_refused(value: float) -> None:
    with pytest.raises(BrokenPicture, match=r"it\.png .*expected 0 \(black\) to 1 \(white\)"):
        read(saved(Image.fromarray(np.full((2, 2), value, np.float32)), "TIFF"))
    with pytest.raises(BrokenPicture, match=r"it\.png .*32 bits"):
        read(saved(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"))


def test_cmyk_and_profiles_become_srgb() -> None:
    found, _ = read(saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100, subsampling=0))
    assert found[0, 0, 0] > 240
    assert found[0, 0, 1:].max() < 15
    plain = Image.new("RGB", (4, 4), (10, 200, 30))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found, counts = read(saved(plain, icc_profile=srgb))
    assert found[0, 0].tolist() == [10, 200, 30]
    assert counts == {}
    # the primaries of red and green exchanged: another space than sRGB
    swapped = bytearray(srgb.replace(b"sRGB", b"SWAP").replace(b"s\0R\0G\0B", b"S\0W\0A\0P"))
    first, second = swapped.find(b"rXYZ"), swapped.find(b"gXYZ")
    swapped[first : first + 4], swapped[second : second + 4] = b"gXYZ", b"rXYZ"
    found, counts = read(saved(plain, icc_profile=bytes(swapped)))
    assert found[0, 0, 0] > 150
    assert counts == {PROFILE: 1}
    found, counts = read(saved(plain, icc_profile=b"damaged" * 40))
    assert found[0, 0].tolist() == [10, 200, 30]
    assert counts == {BAD_PROFILE: 1}
    lab = Image.new("LAB", (2, 2), (255, 128, 128))
    assert np.asarray(rgb(lab)).min() > 250


def test_the_first_frame_of_an_animation_is_taken_and_counted() -> None:
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (250, 120, 10)]
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found, counts = read(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert found[0, 0, 0] == 250
        assert counts == {FIRST_FRAME: 1}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_pictures_stand_upright_at_any_size(kind: str) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying = photo(96, 64)
        data = saved(lying, kind, exif=exif)
        upright, _ = read(data)
        small, counts = read(data, Reading(size=16))
        assert upright.shape[:2] == ((64, 96) if orientation < 5 else (96, 64))
        assert min(small.shape[:2]) == 16
        assert counts == {REDUCED: 1}
        shrunk = np.asarray(Image.fromarray(upright).resize(small.shape[1::-1], Image.Resampling.BOX), int)
        assert abs(small.astype(int) - shrunk).max() < 24, orientation


def test_a_disc_stays_a_disc() -> None:
    wide = Image.new("RGB", (320, 80), "black")
    ImageDraw.Draw(wide).ellipse((130, 10, 190, 70), fill="white")
    shown = np.asarray(fitted(wide, 64, 64).convert("L")) > 127
    across, down = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
    assert abs(len(across) - len(down)) <= 1
    assert abs(across.mean() - 31.5) <= 1
    same = photo(64, 64)
    assert fitted(same, 64, 64) is same
    # of the same aspect ratio, nothing is cropped
    alike = photo(128, 96)
    assert fitted(alike, 64, 48).tobytes() == alike.resize((64, 48), Image.Resampling.LANCZOS).tobytes()


def test_texts_in_a_png_do_not_keep_it_from_being_read() -> None:
    text = b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)
    found, _ = read(png(16, 8, chunk(b"zTXt", text)))
    assert found.shape == (8, 16, 3)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (cut(), "is cut short"),
        (b"%PDF-1.7", "is a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC picture"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "is a video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        (b"nothing", "is not a picture of a known format"),
        (png(15_000, 13_000), "more than 178 million pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture_is_named(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "it.png"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(BrokenPicture, match=rf"it\.png .*{told}|it\.png {told}"):
            decoded(source, Reading(), Tally(), "it.png")


def test_paths_that_are_no_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("elsewhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    for path, told in (
        (tmp_path / "gone.png", "is a link to elsewhere.png"),
        (tmp_path / "pipe.png", "neither a file nor a folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.png", "does not exist"),
    ):
        with pytest.raises(BrokenPicture, match=told):
            read_picture(path)


def test_a_picture_of_pillows_whose_data_is_cut_is_named() -> None:
    image = Image.open(io.BytesIO(cut()))
    with pytest.raises(BrokenPicture, match="row 3 is cut short"):
        loaded(image, Reading(), Tally(), "row 3")


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UserError, match="background is 'whiteish'"):
        Reading(background="whiteish")
    with pytest.raises(UserError, match="size is -1"):
        Reading(size=-1)
