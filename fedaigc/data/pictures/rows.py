"""The rows of a data set as captioned pictures, read one by one."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fedaigc.data.pictures.captioned import CaptionedImage
from fedaigc.data.pictures.captions import captions_of
from fedaigc.data.pictures.decode import Decoded, decoded, loaded
from fedaigc.data.pictures.reading import AS_IT_IS, SEVERAL, BrokenPicture, Reading, Tally
from fedaigc.errors import UserError

if TYPE_CHECKING:
    import datasets


def read_rows(
    rows: Iterable[Mapping[str, Any]],
    image: str = "image",
    caption: str = "caption",
    reading: Reading = AS_IT_IS,
    tally: Tally | None = None,
) -> Iterator[CaptionedImage]:
    """Yield the rows of a `datasets.Dataset`, or of any mappings, as captioned images, one by one.

    Args:
        rows: Rows of the data set.
        image: Column of the images.
        caption: Column of the captions: texts, or lists of texts.
        reading: How pictures are read; default: at their own size.
        tally: Counts what was done.

    Raises:
        UserError: If a column is missing, a row does not hold an image that can be read, or its caption is refused.
            The message names the row.
    """
    tally = Tally() if tally is None else tally
    count = 0
    for number, row in enumerate(_undecoded(rows, image, caption)):
        for column in (image, caption):
            if column not in row:
                raise UserError(
                    f"row {number} has no column {column!r}: expected one of {', '.join(sorted(row))}"
                )
        with tally.skipping(reading):
            captions = captions_of(row[caption], f"row {number}")
            found = _picture_of(
                row[image],
                reading,
                tally,
                f"the picture of row {number}",
                image,
            )
            tally.counts.update([SEVERAL] if captions[1:] else [])
            count += 1
            yield CaptionedImage(found.image, captions[0], "", captions[1:], found.reduced, found.photograph)
    if not count and tally.skipped:
        raise UserError(f"no row of the data set can be used; the first: {tally.skipped[0]}")


def _picture_of(value: Any, reading: Reading, tally: Tally, name: str, column: str) -> Decoded:
    """Return the picture in a row: one of Pillow's, or what `datasets` stores for one.

    Raises:
        BrokenPicture: If there is none, or it cannot be read.
    """
    if isinstance(value, Image.Image):
        return loaded(value, reading, tally, name)
    return decoded(content_of(value, name, column), reading, tally, name)


def content_of(value: Any, name: str, column: str) -> bytes:
    """Return the content of the file that `datasets` stores for a picture.

    Raises:
        BrokenPicture: If there is none.
    """
    if value is None:
        raise BrokenPicture(f"{name} is missing: fill it in, or leave the row out")
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return bytes(value["bytes"])
    if isinstance(value, Mapping) and value.get("path") is not None:
        try:
            return Path(value["path"]).read_bytes()
        except OSError as error:
            raise BrokenPicture(f"{name}: {value['path']}: {error.strerror}") from None
    if isinstance(value, bytes):
        return value
    raise BrokenPicture(f"{name}: column {column!r} holds {type(value).__name__}, not a picture")


def undecoded(rows: "datasets.Dataset", image: str) -> "datasets.Dataset":
    """Return rows with the files of the pictures in place of the pictures, so that a damaged one spoils no other."""
    import datasets

    if isinstance((rows.features or {}).get(image), datasets.Image):
        return rows.cast_column(image, datasets.Image(decode=False))
    return rows


def caption_names(rows: "datasets.Dataset", column: str) -> Any:
    """Return a function that gives the text of a caption: the name of a class in place of its number."""
    feature = (rows.features or {}).get(column)
    name = getattr(feature, "int2str", None)
    return lambda value: value if name is None or value is None else name(value)


def _undecoded(rows: Iterable[Mapping[str, Any]], image: str, caption: str) -> Iterable[Mapping[str, Any]]:
    if not hasattr(rows, "cast_column"):
        return rows
    data: Any = rows
    if {image, caption} <= set(data.column_names or ()):
        data = data.select_columns([image, caption])
    name = caption_names(data, caption)
    return ({**row, caption: name(row[caption])} if caption in row else row for row in undecoded(data, image))
