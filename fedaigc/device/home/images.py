"""The private images of a device: read from a folder or a data set, stored as PNG files with captions."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import checked_prompt
from fedaigc.errors import DamagedFile, UserError
from fedaigc.validation import typed_json

CAPTIONS = "captions.jsonl"


@dataclass(frozen=True)
class CaptionedImage:
    """An RGB image and its caption.

    Attributes:
        image: The image.
        caption: Its caption.
        file: The name of its file, where it came from a folder.
    """

    image: Image.Image
    caption: str
    file: str = ""


@dataclass(frozen=True)
class ListedImage:
    """An image file that was not read yet, and its caption.

    Attributes:
        path: The file.
        caption: Its caption.
        columns: What else the folder's list says about it, by key.
    """

    path: Path
    caption: str
    columns: Mapping[str, Any] = field(default_factory=dict)


class _Listed(BaseModel):
    """A line of a folder's list; numbers are read as text, and further keys are kept."""

    model_config = ConfigDict(coerce_numbers_to_str=True, extra="allow")

    file: str = Field(validation_alias=AliasChoices("file", "file_name"))
    caption: str = Field(validation_alias=AliasChoices("caption", "text"))


@dataclass(frozen=True)
class _Stored:
    file: str
    caption: str


class ImageStore:
    """The private images of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._index = home.images / CAPTIONS

    def __len__(self) -> int:
        return len(self._entries())

    def add(self, pictures: Iterable[CaptionedImage]) -> int:
        """Store images after those already held and return how many were added.

        The index is written last, so the images appear all at once or, after an error or a crash, not at all.
        """
        entries = self._entries()
        before = len(entries)
        for picture in pictures:
            name = f"{len(entries):06d}.png"
            encoded = io.BytesIO()
            picture.image.convert("RGB").save(encoded, format="PNG")
            self._home.write(self._home.images / name, encoded.getvalue())
            entries.append(_Stored(name, picture.caption))
        lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
        self._home.write(self._index, lines.encode())
        return len(entries) - before

    def add_new(self, pictures: Iterable[CaptionedImage]) -> tuple[int, int]:
        """Store images as `add` does, but none twice with the same caption.

        Returns:
            How many were added, and how many were left out.
        """
        seen = {_content(held) for held in self._each()}
        left_out = 0

        def new() -> Iterator[CaptionedImage]:
            nonlocal left_out
            for picture in pictures:
                content = _content(picture)
                if content in seen:
                    left_out += 1
                else:
                    seen.add(content)
                    yield picture

        return self.add(new()), left_out

    def all(self) -> list[CaptionedImage]:
        """Return every image, in the order in which they were added."""
        return list(self._each())

    def listed(self) -> list[ListedImage]:
        """Return the file and the caption of every image, in the order in which they were added."""
        return [ListedImage(self._home.images / entry.file, entry.caption) for entry in self._entries()]

    def digest(self) -> str:
        """Return a fingerprint of images and captions, which names the cached latents.

        It stays on the device.
        """
        total = hashlib.sha256()
        for entry in self._entries():
            total.update(entry.caption.encode() + b"\0")
            total.update(hashlib.sha256((self._home.images / entry.file).read_bytes()).digest())
        return total.hexdigest()

    def _each(self) -> Iterator[CaptionedImage]:
        for entry in self._entries():
            yield CaptionedImage(read_picture(self._home.images / entry.file), entry.caption, entry.file)

    def _entries(self) -> list[_Stored]:
        if not self._index.exists():
            return []
        try:
            return [typed_json(_Stored, line) for line in self._index.read_bytes().splitlines()]
        except ValidationError:
            raise DamagedFile(f"{self._index} is damaged: expected one JSON object a line") from None


def read_folder(folder: Path) -> list[CaptionedImage]:
    """Return the images of a folder with their captions, sorted by file name.

    Captions come from `captions.jsonl` (or `metadata.jsonl`) with one object per line, such as

        {"file": "cat.png", "caption": "a cat on a sofa"}

    or from a text file next to each image: cat.png, cat.txt. The keys `file_name` and `text` are accepted as
    well. Files whose names begin with a dot are ignored.

    Raises:
        UserError: If the folder is missing or empty, a file is not an image, or an image or a caption has no
            counterpart. The message names the file.
    """
    return [
        CaptionedImage(read_picture(each.path), each.caption, each.path.name) for each in list_folder(folder)
    ]


def list_folder(folder: Path) -> list[ListedImage]:
    """Return the image files of a folder with their captions, as `read_folder`, without reading the images.

    Further keys of a line, such as "label", become columns.

    Raises:
        UserError: As `read_folder`, but an image with a caption may be damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a folder of pictures with captions")
    captions = _listed_captions(folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    sidecars = {path.stem: path for path in files if path.suffix == ".txt"}
    found: list[ListedImage] = []
    for path in files:
        if path.suffix == ".txt" or path.name in (CAPTIONS, "metadata.jsonl"):
            continue
        sidecar = sidecars.pop(path.stem, None)
        listed = captions.pop(path.name, None)
        caption = listed.caption if listed is not None else _text(sidecar) if sidecar is not None else None
        if caption is None:
            read_picture(path)  # a file that is no picture needs no caption
            raise UserError(
                f"{path} has no caption: add a line to {CAPTIONS} or write {path.stem}.txt beside it"
            )
        columns = dict(listed.model_extra or {}) if listed is not None else {}
        found.append(ListedImage(path, checked_caption(caption, path), columns))
    orphans = [str(path) for path in sidecars.values()] + [
        f"{folder / name} in {CAPTIONS}" for name in captions
    ]
    if orphans:
        raise UserError(f"{orphans[0]} has a caption but no picture: add the picture or remove the caption")
    if not found:
        raise UserError(f"no pictures in {folder}: put PNG, JPEG or WebP files with captions there")
    return found


def read_rows(
    rows: Iterable[Mapping[str, Any]], image: str = "image", caption: str = "caption"
) -> Iterator[CaptionedImage]:
    """Yield the rows of a `datasets.Dataset`, or of any mappings, as captioned images, one by one.

    Args:
        rows: Rows of the data set.
        image: Column of the images.
        caption: Column of the captions.

    Raises:
        UserError: If a column is missing, a row does not hold an image, or its caption is refused.
    """
    for number, row in enumerate(rows):
        for column in (image, caption):
            if column not in row:
                raise UserError(
                    f"row {number} has no column {column!r}: expected one of {', '.join(sorted(row))}"
                )
        if not isinstance(row[image], Image.Image):
            raise UserError(
                f"column {image!r} of row {number} holds {type(row[image]).__name__}, not a picture"
            )
        yield CaptionedImage(row[image].convert("RGB"), checked_caption(str(row[caption]), f"row {number}"))


def read_picture(source: Path | io.BytesIO, name: str = "") -> Image.Image:
    """Return the image in RGB, upright.

    Args:
        source: Its file, or the content of one.
        name: What to call it in an error message; default: the path.

    Raises:
        UserError: If the file is not an image.
    """
    try:
        with Image.open(source) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError(
            f"{name or source} is not a picture: remove it from the folder, or convert it to PNG"
        ) from None


def _content(picture: CaptionedImage) -> bytes:
    """Return a digest of what an image shows, whatever its file, and of its caption."""
    image = picture.image.convert("RGB")
    head = f"{image.width} {image.height} {picture.caption}\0".encode()
    return hashlib.sha256(head + image.tobytes()).digest()


def checked_caption(caption: str, where: Path | str) -> str:
    """Return a caption as a prompt of the same text; see `checked_prompt`.

    Raises:
        UserError: If it is refused; the message says `where` it stands.
    """
    try:
        return checked_prompt(caption)
    except UserError as error:
        raise UserError(f"the caption of {where}: {error}") from None


def _listed_captions(folder: Path) -> dict[str, _Listed]:
    """Return the lines by file name, from the folder's list if it has one."""
    captions: dict[str, _Listed] = {}
    for path in (folder / CAPTIONS, folder / "metadata.jsonl"):
        if not path.exists():
            continue
        for number, line in enumerate(_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                entry = _Listed.model_validate_json(line)
            except ValidationError:
                raise UserError(
                    f'{path}, line {number}: expected {{"file": "cat.png", "caption": "a cat on a sofa"}}'
                ) from None
            captions[entry.file] = entry
    return captions


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError:
        raise UserError(f"{path} is not a UTF-8 text file: save it as UTF-8") from None
