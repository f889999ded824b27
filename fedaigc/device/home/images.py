"""The private images of a device, stored as PNG or JPEG files with captions."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import lock_descriptor
from PIL import Image
from pydantic import ValidationError

from fedaigc.counting import counted, were
from fedaigc.data.pictures.captioned import CaptionedImage, ListedImage
from fedaigc.data.pictures.decode import read_picture
from fedaigc.data.pictures.lazy import PictureFiles
from fedaigc.data.pictures.lists import CAPTIONS
from fedaigc.data.pictures.rgb import rgb
from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile, UserError
from fedaigc.validation import typed_json

# of photographs that were made smaller: as PNG, they would take more space than the originals
_JPEG_QUALITY = 95
_ADDING = ".adding"


@dataclass(frozen=True)
class _Stored:
    """A line of the index.

    Attributes:
        file: Name of the file.
        caption: Its caption, or the first of several.
        others: Its further captions.
        size: Short side of a picture that was made smaller; 0 for one of its own size.
    """

    file: str
    caption: str
    others: tuple[str, ...] = ()
    size: int = 0

    def line(self) -> str:
        values = {name: value for name, value in asdict(self).items() if value or name in ("file", "caption")}
        return json.dumps(values, ensure_ascii=False) + "\n"


class ImageStore:
    """The private images of one home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._index = home.images / CAPTIONS
        if (home.images / _ADDING).exists():
            with self._locked(wait=False) as alone:
                if alone:
                    self._remove_leftovers()

    def __len__(self) -> int:
        return len(self._entries())

    def add(self, pictures: Iterable[CaptionedImage]) -> int:
        """Store images after those already held and return how many were added.

        They are read and written one by one. The index is written last, so the images appear all at once or, after
        an error, not at all. What a process leaves that is killed meanwhile is removed when the home is opened
        again. Two processes add one after the other.
        """
        with self._locked():
            return self._add(pictures)

    def add_new(self, pictures: Iterable[CaptionedImage]) -> tuple[int, int]:
        """Store images as `add` does, but none twice with the same captions.

        Returns:
            How many were added, and how many were left out.
        """
        with self._locked():
            seen = _Seen(self.home.images, self._entries())
            added = self._add(pictures, seen.is_new)
        return added, seen.repeated

    def all(self) -> list[CaptionedImage]:
        """Return every image, in the order in which they were added; see `pictures` for many."""
        return list(self._each())

    def pictures(self) -> PictureFiles:
        """Return the images, in the order in which they were added; each is read when it is asked for."""
        return PictureFiles([self.home.images / entry.file for entry in self._entries()])

    def captions(self) -> list[tuple[str, ...]]:
        """Return the captions of every image."""
        return [(entry.caption, *entry.others) for entry in self._entries()]

    def check_size(self, height: int, width: int) -> None:
        """Check that no image was made smaller than training needs.

        Raises:
            UserError: If images would be enlarged that were made smaller when they were added.
        """
        entries = self._entries()
        small = [entry.size for entry in entries if 0 < entry.size < min(height, width)]
        if small:
            raise UserError(
                f"{len(small)} of {counted(len(entries), 'picture')} in {self.home.root} {were(len(small))} made "
                f"smaller when added, to {min(small)} pixels on the short side, and training at {width} x {height} "
                f"would enlarge them: add the originals to a new home with --size {min(height, width)}"
            )

    def listed(self) -> list[ListedImage]:
        """Return the file and the captions of every image, in the order in which they were added."""
        return [
            ListedImage(self.home.images / entry.file, (entry.caption, *entry.others))
            for entry in self._entries()
        ]

    def digest(self) -> str:
        """Return a fingerprint of images and captions, which names the cached latents.

        It stays on the device.
        """
        total = hashlib.sha256()
        for entry in self._entries():
            total.update("\0".join([entry.caption, *entry.others]).encode() + b"\0")
            total.update(hashlib.sha256((self.home.images / entry.file).read_bytes()).digest())
        return total.hexdigest()

    def _add(
        self,
        pictures: Iterable[CaptionedImage],
        wanted: Callable[[CaptionedImage, bytes], bool] | None = None,
    ) -> int:
        self._remove_leftovers()
        entries = self._entries()
        before = len(entries)
        self.home.write(self.home.images / _ADDING, b"")
        try:
            for picture in pictures:
                data, suffix = _encoded(picture)
                if wanted is not None and not wanted(picture, data):
                    continue
                name = f"{len(entries):06d}{suffix}"
                self.home.write(self.home.images / name, data)
                size = min(picture.image.size) if picture.reduced else 0
                entries.append(_Stored(name, picture.caption, picture.others, size))
            if len(entries) > before or not self._index.exists():
                self.home.write(self._index, "".join(entry.line() for entry in entries).encode())
        finally:
            self._remove_leftovers()
        return len(entries) - before

    def _remove_leftovers(self) -> None:
        """Remove the files that the index does not name."""
        marker = self.home.images / _ADDING
        if not marker.exists():
            return
        known = {CAPTIONS, _ADDING, *(entry.file for entry in self._entries())}
        for path in self.home.images.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)
        marker.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of the folder of images, which is released when its holder ends."""
        descriptor = os.open(self.home.images, os.O_RDONLY)
        try:
            yield lock_descriptor(descriptor, blocking=wait)
        finally:
            os.close(descriptor)

    def _each(self) -> Iterator[CaptionedImage]:
        for entry in self._entries():
            image = read_picture(self.home.images / entry.file)
            yield CaptionedImage(image, entry.caption, entry.file, entry.others)

    def _entries(self) -> list[_Stored]:
        if not self._index.exists():
            return []
        try:
            return [typed_json(_Stored, line) for line in self._index.read_bytes().splitlines()]
        except ValidationError:
            raise DamagedFile(f"{self._index} is damaged: expected one JSON object a line") from None


class _Seen:
    """The images that a home holds, by captions and content; only those with equal captions are ever read."""

    def __init__(self, folder: Path, entries: Sequence[_Stored]) -> None:
        self.repeated = 0
        self._unread: dict[tuple[str, ...], list[Path]] = {}
        for entry in entries:
            self._unread.setdefault((entry.caption, *entry.others), []).append(folder / entry.file)
        self._contents: dict[tuple[str, ...], set[bytes]] = {}

    def is_new(self, picture: CaptionedImage, data: bytes) -> bool:
        """Return whether an image that is about to be stored as `data` was not there yet, and remember it."""
        known = self._contents.setdefault(picture.captions, set())
        known |= {_content_of(path) for path in self._unread.pop(picture.captions, ())}
        content = _digest(data) if _is_lossy(picture) else _content(picture.image)
        new = content not in known
        known.add(content)
        self.repeated += not new
        return new


def _is_lossy(picture: CaptionedImage) -> bool:
    return picture.photograph and picture.reduced


def _encoded(picture: CaptionedImage) -> tuple[bytes, str]:
    """Return the file of an image, and how its name ends."""
    buffer, image = io.BytesIO(), rgb(picture.image)
    if _is_lossy(picture):
        image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return buffer.getvalue(), ".jpg"
    if image.info:
        image = image.copy()
        image.info.clear()
    image.save(buffer, format="PNG")
    return buffer.getvalue(), ".png"


def _content_of(path: Path) -> bytes:
    # homes write JPEG files in one way only; they do not keep every pixel, so the file itself counts
    return _digest(path.read_bytes()) if path.suffix == ".jpg" else _content(read_picture(path))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _content(image: Image.Image) -> bytes:
    """Return a digest of what an image shows, whatever its file."""
    image = rgb(image)
    return hashlib.sha256(f"{image.width} {image.height}\0".encode() + image.tobytes()).digest()
