"""A folder of pictures with captions: in its list, in text files beside them, or by the names of sub-folders."""

import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaigc.data.pictures.captioned import CaptionedImage, ListedImage
from fedaigc.data.pictures.captions import captions_in, captions_of
from fedaigc.data.pictures.decode import check_file, decoded
from fedaigc.data.pictures.lists import CAPTIONS, LISTS, Entry, entries_of
from fedaigc.data.pictures.reading import AS_IT_IS, SEVERAL, BrokenPicture, Reading, Tally
from fedaigc.errors import UserError
from fedaigc.validation import nearest

LABEL = "label"
# what systems leave in folders, besides files whose names begin with a dot
_LITTER = ("Thumbs.db", "desktop.ini", "__MACOSX")
_TABLES = (".parquet", ".arrow", ".csv", ".json", ".tar")


@dataclass(frozen=True)
class _Listed:
    captions: tuple[str, ...] | None
    columns: Mapping[str, Any]
    where: str


def read_folder(
    folder: Path, reading: Reading = AS_IT_IS, tally: Tally | None = None
) -> Iterator[CaptionedImage]:
    """Return the images of a folder with their captions, in the order of their names, read one by one.

    Captions come from `captions.jsonl` (or `metadata.jsonl`) with one object per line, such as

        {"file": "cat.png", "caption": "a cat on a sofa"}

    from `metadata.csv` or `metadata.parquet`, or from a text file next to each image: cat.png, cat.txt. The keys
    `file_name` and `text` are accepted as well. A list of captions, or several lines of a text file, are several
    captions. Files whose names begin with a dot are ignored.

    Args:
        folder: The folder.
        reading: How pictures are read; default: at their own size.
        tally: Counts what was done.

    Raises:
        UserError: If the folder is missing or empty, a file is not an image, or an image or a caption has no
            counterpart. The message names the file.
    """
    counted = Tally() if tally is None else tally
    return read_listed(list_folder(folder, reading, counted), reading, counted)


def read_listed(listed: Iterable[ListedImage], reading: Reading, tally: Tally) -> Iterator[CaptionedImage]:
    """Read listed pictures one by one.

    Raises:
        UserError: If one cannot be read; the message names it.
    """
    for each in listed:
        with tally.skipping(reading):
            found = decoded(each.path, reading, tally)
            caption, *others = each.captions
            tally.counts.update([SEVERAL] if others else [])
            yield CaptionedImage(
                found.image, caption, each.path.name, tuple(others), found.reduced, found.photograph
            )


def list_folder(folder: Path, reading: Reading = AS_IT_IS, tally: Tally | None = None) -> list[ListedImage]:
    """Return the image files of a folder with their captions, as `read_folder`, without reading the images.

    Further keys of a line, such as "label", become columns.

    Raises:
        UserError: As `read_folder`, but an image with a caption may be damaged.
    """
    tally = Tally() if tally is None else tally
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a folder of pictures with captions")
    files = sorted(_files(folder, reading))
    lists = [path for path in files if path.name in LISTS]
    rest = [path for path in files if path.name not in LISTS]
    pictures = [path for path in rest if path.suffix.lower() != ".txt"]
    entries = [
        entry
        for parent in dict.fromkeys(path.parent for path in lists)
        for entry in entries_of(parent, reading, tally)
    ]
    listed = _matched(folder, pictures, entries, reading, tally)
    beside = _beside(pictures, [path for path in rest if path.suffix.lower() == ".txt"], reading, tally)
    skipped, found = len(tally.skipped), []
    for path in pictures:
        with tally.skipping(reading):
            found.append(_listed(folder, path, listed.get(path), beside.get(path), reading, entries))
    if not found and len(tally.skipped) > skipped:
        raise UserError(f"none of the pictures in {folder} can be used; the first: {tally.skipped[skipped]}")
    if not found:
        raise UserError(f"no pictures in {folder}: put PNG, JPEG or WebP files with captions there")
    return found


def picture_files(folder: Path) -> list[Path]:
    """Return the files of a folder, in the order of their names, without lists, texts, and what systems leave.

    Raises:
        UserError: If it is not a folder, or has sub-folders.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a folder of pictures")
    files = sorted(_files(folder, AS_IT_IS))
    return [path for path in files if path.suffix.lower() != ".txt" and path.name not in LISTS]


def _files(folder: Path, reading: Reading) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _LITTER:
            continue
        if not path.is_dir():
            yield path
        elif reading.sub_folders == "refuse":
            raise UserError(
                f"{path} is a folder: to read the pictures in it as well, give --sub-folders read (sub_folders), or "
                "classes if its name is the label of the pictures"
            )
        else:
            yield from _files(path, reading)


def _matched(
    folder: Path, pictures: Sequence[Path], entries: Sequence[Entry], reading: Reading, tally: Tally
) -> dict[Path, _Listed]:
    """Find the picture of each entry: by its name, in any Unicode form and, if that is clear, in any case."""
    exact = {str(path): path for path in pictures}
    plain = _unique({_plain(str(path)): path for path in pictures}, pictures, _plain)
    folded = _unique({_folded(str(path)): path for path in pictures}, pictures, _folded)
    found: dict[Path, _Listed] = {}
    for entry in entries:
        with tally.skipping(reading):
            name = str(entry.list.parent / posixpath.normpath(entry.file.replace("\\", "/")))
            path = exact.get(name) or plain.get(_plain(name)) or folded.get(_folded(name))
            shown = entry.list.parent / entry.file
            if path is None:
                free = {_plain(path.name): path.name for path in pictures}
                near = nearest(_plain(entry.file), list(free))
                raise BrokenPicture(
                    f"{shown} in {entry.list.name} has a caption but no picture: add the picture or remove the "
                    f"caption{near}"
                )
            if path in found:
                raise BrokenPicture(
                    f"{entry.where} names {path} again, after {found[path].where}: keep one line, and give several "
                    "captions as a list"
                )
            captions = None
            if entry.caption is not None or reading.sub_folders != "classes":
                captions = captions_of(entry.caption, f"{path} ({entry.where})")
            found[path] = _Listed(captions, entry.columns, entry.where)
    return found


def _beside(
    pictures: Sequence[Path], texts: Sequence[Path], reading: Reading, tally: Tally
) -> dict[Path, Path]:
    """Find the picture of each text file: cat.png or cat.jpg of cat.txt or cat.png.txt."""
    found: dict[Path, Path] = {}
    named: dict[str, Path] = {}
    for way in (_folded, _plain, str):
        for path in reversed(pictures):
            named[way(str(path))] = path
            named[way(str(path.with_suffix("")))] = path
    for text in texts:
        stem = str(text.with_suffix(""))
        picture = named.get(stem) or named.get(_plain(stem)) or named.get(_folded(stem))
        with tally.skipping(reading):
            if picture is None:
                near = nearest(_plain(text.stem), [_plain(each.stem) for each in pictures])
                raise BrokenPicture(
                    f"{text} has a caption but no picture: add the picture or remove the caption{near}"
                )
            found[picture] = text
    return found


def _listed(
    folder: Path,
    path: Path,
    listed: _Listed | None,
    text: Path | None,
    reading: Reading,
    entries: Sequence[Entry],
) -> ListedImage:
    columns = dict(listed.columns) if listed is not None else {}
    own = listed.captions if listed is not None else None
    if text is not None:
        beside = captions_in(text, path)
        if own is not None and own != beside:
            raise BrokenPicture(
                f"{path} has one caption in {listed.where if listed else ''} and another in {text.name}: remove one"
            )
        own = beside
    if reading.sub_folders == "classes" and path.parent != folder:
        label = path.relative_to(folder).parts[0]
        columns.setdefault(LABEL, label)
        own = own if own is not None else captions_of(label.replace("_", " "), path)
    if own is None:
        raise _without_caption(path, reading, entries)
    check_file(path)
    return ListedImage(path, own, columns)


def _without_caption(path: Path, reading: Reading, entries: Sequence[Entry]) -> BrokenPicture:
    """Say what a file without a caption is: a picture, or something else."""
    if path.suffix.lower() in _TABLES:
        return BrokenPicture(
            f"{path} is a table and not a picture: read a data set with `fedaigc device add-data-set`, or remove it"
        )
    decoded(path, reading, Tally())  # a file that is no picture needs no caption
    near = nearest(_plain(path.name), [_plain(entry.file) for entry in entries])
    return BrokenPicture(
        f"{path} has no caption: add a line to {CAPTIONS} or write {path.stem}.txt beside it{near}"
    )


def _unique(found: dict[str, Path], pictures: Sequence[Path], way: Any) -> dict[str, Path]:
    """Leave out the names that several pictures have in this way of writing."""
    counts: dict[str, int] = {}
    for path in pictures:
        counts[way(str(path))] = counts.get(way(str(path)), 0) + 1
    return {name: path for name, path in found.items() if counts[name] == 1}


def _plain(name: str) -> str:
    """A name in one Unicode form: macOS writes accents as characters of their own."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _plain(name).casefold()
