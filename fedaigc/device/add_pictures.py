"""Pictures from a folder or a data set into a device's home: the one way in of the command line and of the API."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaigc.data.pictures.captioned import CaptionedImage
from fedaigc.data.pictures.folder import list_folder, read_listed
from fedaigc.data.pictures.reading import Reading, Tally
from fedaigc.data.pictures.rows import read_rows
from fedaigc.device.home.images import ImageStore

# called with the number of pictures that were read, and of all if that is known
OnPicture = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Added:
    """What became of pictures.

    Attributes:
        added: Number of pictures that are in the home now.
        repeated: Number of those that were there already, with the same captions.
        tally: What reading them took.
    """

    added: int
    repeated: int
    tally: Tally


def add_pictures(
    store: ImageStore,
    source: str | Path | Iterable[Mapping[str, Any]],
    reading: Reading,
    *,
    again: bool = False,
    progress: OnPicture = lambda done, total: None,
) -> Added:
    """Add pictures to a home, one by one.

    Args:
        store: The images of the home.
        source: A folder of pictures with captions, or the rows of a data set.
        reading: How they are read.
        again: Whether to add those, too, that are there already.
        progress: Called after each picture.

    Raises:
        UserError: If a picture or a caption is refused; then none is added.
    """
    tally, total = Tally(), None
    if isinstance(source, str | Path):
        listed = list_folder(Path(source), reading, tally)
        pictures, total = read_listed(listed, reading, tally), len(listed)
    else:
        total = len(source) if isinstance(source, Sized) else None
        pictures = read_rows(source, reading.image_column, reading.caption_column, reading, tally)
    shown = told(pictures, total, progress)
    added, repeated = (store.add(shown), 0) if again else store.add_new(shown)
    return Added(added, repeated, tally)


def told(
    pictures: Iterable[CaptionedImage], total: int | None, progress: OnPicture, before: int = 0
) -> Iterator[CaptionedImage]:
    """Yield pictures, and tell after each one how many of the total are done, besides those `before`."""
    for number, picture in enumerate(pictures, start=before + 1):
        yield picture
        progress(number, total)
