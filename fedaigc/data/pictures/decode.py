"""One picture from a file or its bytes: upright, in RGB, and named as what it is if it is none."""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from fedaigc.data.pictures.reading import (
    AS_IT_IS,
    FIRST_FRAME,
    OBLONG,
    REDUCED,
    BrokenPicture,
    Reading,
    Tally,
)
from fedaigc.data.pictures.rgb import converted

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_HEAD = 512
# sides that differ by more are worth a line
_OBLONG = 1.2


@dataclass(frozen=True)
class Decoded:
    """A picture that was read.

    Attributes:
        image: The picture in RGB, upright.
        reduced: Whether it was made smaller.
        photograph: Whether it came from a JPEG, which has lost details already.
    """

    image: Image.Image
    reduced: bool
    photograph: bool


def read_picture(source: Path | bytes | io.BytesIO, name: str = "") -> Image.Image:
    """Return a picture at its own size, in RGB and upright; see `decoded`."""
    data = source.getvalue() if isinstance(source, io.BytesIO) else source
    return decoded(data, AS_IT_IS, Tally(), name).image


def decoded(source: Path | bytes, reading: Reading, tally: Tally, name: str = "") -> Decoded:
    """Return a picture in RGB, upright, with its short side reduced to `reading.size`.

    A JPEG is decoded at a fraction of its size where that is enough.

    Args:
        source: Its file, or the content of one.
        reading: Background and size.
        tally: Counts what was done.
        name: What to call it in an error message; default: the path.

    Raises:
        BrokenPicture: If it is no picture, or cannot be read; the message says why.
    """
    name = name or str(source)
    if isinstance(source, Path):
        check_file(source, name)
    elif not source:
        raise BrokenPicture(f"{name} is empty: copy it again, or remove it")
    with _named(source, name):
        try:
            return _decoded(io.BytesIO(source) if isinstance(source, bytes) else source, reading, tally, name)
        except ValueError as error:
            # Pillow refuses long texts in a PNG, such as the workflow of a generator
            if "MAX_TEXT" not in str(error):
                raise
            data = source.read_bytes() if isinstance(source, Path) else source
            return _decoded(io.BytesIO(without_texts(data)), reading, tally, name)


def loaded(image: Image.Image, reading: Reading, tally: Tally, name: str) -> Decoded:
    """Return a picture of Pillow's as `decoded` does, wherever it came from.

    Raises:
        BrokenPicture: If its data cannot be read.
    """
    with _named(b"", name):
        return _upright(image, reading, tally, name)


def check_file(path: Path, name: str = "") -> None:
    """Check that a path is a file with content.

    Raises:
        BrokenPicture: If it is something else; the message says what.
    """
    name = name or str(path)
    if path.is_symlink() and not path.exists():
        raise BrokenPicture(
            f"{name} is a link to {path.readlink()}, which does not exist: restore it, or remove the link"
        )
    if path.is_dir():
        raise BrokenPicture(f"{name} is a folder: expected a picture")
    if not path.exists():
        raise BrokenPicture(f"{name} does not exist")
    if not path.is_file():
        raise BrokenPicture(f"{name} is neither a file nor a folder: remove it")
    if not path.stat().st_size:
        raise BrokenPicture(f"{name} is empty: copy it again, or remove it")


def without_texts(png: bytes) -> bytes:
    """Return a PNG file without its text chunks."""
    parts, at = [png[: len(_PNG)]], len(_PNG)
    while at + 8 <= len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        end = at + 12 + length
        if png[at + 4 : at + 8] not in _TEXT_CHUNKS:
            parts.append(png[at:end])
        at = end
    return b"".join(parts)


def _decoded(source: Path | io.BytesIO, reading: Reading, tally: Tally, name: str) -> Decoded:
    with warnings.catch_warnings():
        # Pillow warns about pictures of half the size that it refuses, and about odd metadata
        warnings.simplefilter("ignore")
        with Image.open(source) as image:
            return _upright(image, reading, tally, name)


def _upright(image: Image.Image, reading: Reading, tally: Tally, name: str) -> Decoded:
    kind = image.format
    if kind == "TIFF":
        image.load()  # which turns it upright
    before = image.size
    frames = getattr(image, "n_frames", 1) if kind != "MPO" else 1  # phones keep a preview as a second frame
    turn = _orientation(image)
    short = min(image.size)
    smaller = bool(reading.size) and short > reading.size
    if smaller and kind in ("JPEG", "MPO"):
        image.draft(None, tuple(-(-side * reading.size // short) for side in image.size))  # type: ignore[arg-type]
    image.load()
    found, done = converted(image, reading, name)
    if found is image:
        found = image.copy()  # without the file
    if frames > 1:
        done.append(FIRST_FRAME)
    if smaller:
        done.append(REDUCED)
    if max(found.size) > _OBLONG * min(found.size):
        done.append(OBLONG)
    if turn in _TURN:
        found = found.transpose(_TURN[turn])
    tally.counts.update(done)
    return Decoded(found, found.size not in (before, before[::-1]), kind in ("JPEG", "MPO"))


_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata of a sound picture: it is shown as it lies
        return 1


@contextlib.contextmanager
def _named(source: Path | bytes, name: str) -> Iterator[None]:
    """Say what a file is that cannot be read."""
    try:
        yield
    except BrokenPicture:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise BrokenPicture(
            f"{name} has more than {limit} million pixels, which would fill the memory: make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise BrokenPicture(f"{name} {_what(source)}") from None
    except MemoryError:
        raise BrokenPicture(f"{name} does not fit into the memory: make it smaller") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BrokenPicture(f"{name} cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        if "truncated" in reason.lower():
            raise BrokenPicture(f"{name} is cut short: copy it again, or remove it") from None
        raise BrokenPicture(f"{name} is damaged ({reason:.100}): copy it again, or remove it") from None


def _what(source: Path | bytes) -> str:
    """Say what a file is that Pillow does not know."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(_HEAD)
    else:
        head = source[:_HEAD]
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"):
        return "is a HEIC picture, which Pillow does not read: convert it to JPEG or PNG"
    if head[4:8] == b"ftyp":
        return "is a video: remove it, or keep one frame of it as a picture"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS in place of the picture: fetch the pictures with `git lfs pull`"
    if head.startswith(b"%PDF"):
        return "is a PDF document: remove it, or convert its pages to PNG"
    if b"<svg" in head:
        return "is an SVG drawing: convert it to PNG"
    return "is not a picture of a known format: remove it, or convert it to PNG"
