"""Captioned pictures of a researcher's own: from a folder, a `datasets` data set or existing homes."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fedaigc.data.partition import PartitionSettings, partition
from fedaigc.data.sources import is_saved, load_data_set
from fedaigc.device.home.home import Home, home_of
from fedaigc.device.home.images import (
    CAPTIONS,
    CaptionedImage,
    ImageStore,
    ListedImage,
    checked_caption,
    list_folder,
    read_picture,
)
from fedaigc.errors import UserError

if TYPE_CHECKING:
    import datasets

LABEL = "label"
HOME = "home"
# what `datasets.load_dataset` reads from a folder that holds no pictures
_TABLES = (".parquet", ".arrow", ".csv", ".json", ".tar")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class OwnData(BaseModel):
    """Where own pictures come from.

    Attributes:
        source: A folder of pictures with captions (as `fedaigc device add-images` reads it), a folder of
            `save_to_disk`, a folder of homes 00, 01, ..., or the hub name of a data set in the local cache.
        image_column: Column of the images, in a data set.
        caption_column: Column of the captions, in a data set.
        label_column: Column of the labels: a column of the data set, or a key of the folder's list of captions.
            None: "label", if there is one.
        split: Split of the data set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    image_column: str = "image"
    caption_column: str = "caption"
    label_column: str | None = None
    split: str = "train"


@dataclass(frozen=True, eq=False)
class Pool:
    """Own pictures, which are read one by one.

    Attributes:
        names: Name of each picture: its file, or its row.
        captions: Its caption.
        columns: Further columns, by name.
        label_column: The column of the labels; None without labels.
    """

    names: tuple[str, ...]
    captions: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    label_column: str | None
    _bytes: Callable[[int], bytes]
    _digests: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, number: int) -> CaptionedImage:
        """Return one picture, in RGB and upright.

        Raises:
            UserError: If it cannot be read; the message names it.
        """
        name = self.names[number]
        return CaptionedImage(
            read_picture(io.BytesIO(self._bytes(number)), name), self.captions[number], name
        )

    def check(self) -> None:
        """Read every picture once.

        Raises:
            UserError: If one cannot be read; the message names it.
        """
        for number in range(len(self)):
            self.picture(number)

    def labels(self, column: str) -> list[str]:
        """Return the values of a column as text.

        Raises:
            UserError: If there is no such column, or a picture has no value in it.
        """
        if column not in self.columns:
            known = ", ".join(sorted(self.columns)) or "none"
            raise UserError(
                f"the pictures have no column {column!r}: expected one of their columns ({known})"
            )
        for name, value in zip(self.names, self.columns[column], strict=True):
            if value is None:
                raise UserError(f"{name} has no {column!r}: fill it in, or leave the picture out")
        return [str(value) for value in self.columns[column]]

    def digest(self, columns: Sequence[str] = ()) -> str:
        """Return a fingerprint of pictures, captions and the values of some columns, whatever their place."""
        total = hashlib.sha256()
        labels = [self.labels(column) for column in columns]
        for number, (caption, encoded) in enumerate(zip(self.captions, self._hashes(), strict=True)):
            total.update(encoded + "\0".join([caption, *(each[number] for each in labels)]).encode() + b"\0")
        return total.hexdigest()

    def repeated(self) -> list[str]:
        """Return the names of the pictures whose files equal that of an earlier one."""
        seen: set[bytes] = set()
        found = []
        for name, encoded in zip(self.names, self._hashes(), strict=True):
            if encoded in seen:
                found.append(name)
            seen.add(encoded)
        return found

    def settled(self, settings: PartitionSettings) -> PartitionSettings:
        """Return a partition with the labels as its column, where it reads a column and names none."""
        reads = settings.kind in ("dirichlet", "pathological", "natural")
        if not reads or "column" in settings.model_fields_set:
            return settings
        if self.label_column is None:
            known = ", ".join(sorted(self.columns)) or "none"
            raise UserError(
                f"a partition of the kind {settings.kind!r} needs labels, and the pictures have no column "
                f"{LABEL!r}: name one of their columns ({known}), add a key {LABEL!r} to the lines of captions.jsonl, "
                'or choose the kind "iid"'
            )
        return settings.model_copy(update={"column": self.label_column})

    def divide(self, settings: PartitionSettings, num_clients: int, seed: int) -> list[list[int]]:
        """Return the numbers of each client's pictures.

        Args:
            settings: The partition.
            num_clients: Number of clients.
            seed: Seed of everything that is drawn.

        Raises:
            UserError: If there are fewer pictures than clients, if all have one label where labels are to differ,
                or as `data.partition.partition`.
        """
        import datasets

        if len(self) < num_clients:
            raise UserError(
                f"{len(self)} pictures for {num_clients} clients: give more pictures or fewer clients"
            )
        column, rows = settings.read_column, {"row": list(range(len(self)))}
        if column is not None:
            rows[column] = labels = self.labels(column)  # type: ignore[assignment]
            if len(set(labels)) == 1 and num_clients > 1:
                raise UserError(
                    f"all {len(self)} pictures have the {column} {labels[0]!r}: a partition of the kind "
                    f'{settings.kind!r} needs at least two; choose the kind "iid"'
                )
        parts = partition(datasets.Dataset.from_dict(rows), settings, num_clients, seed)
        return [[int(row) for row in part["row"]] for part in parts]

    def counts(self, parts: Sequence[Sequence[int]], column: str | None) -> list[dict[str, int]]:
        """Return the number of pictures of each label for each client; without a column, by the label ""."""
        labels = self.labels(column) if column is not None else [""] * len(self)
        known = sorted(set(labels))
        found = [Counter(labels[row] for row in part) for part in parts]
        return [{label: count[label] for label in known} for count in found]

    def _hashes(self) -> list[bytes]:
        if not self._digests:
            self._digests.extend(hashlib.sha256(self._bytes(n)).digest() for n in range(len(self)))
        return self._digests


def read_pool(data: OwnData) -> Pool:
    """Return own pictures.

    Files that changed since the last call are read again.

    Raises:
        UserError: If the source, a caption or a column is missing. The message names it.
    """
    return _read_pool(data, _state_of(Path(data.source)))


def num_homes(folder: Path) -> int:
    """Return the number of homes 00, 01, ... in a folder."""
    count = 0
    while (home_of(folder, count) / "device.json").is_file():
        count += 1
    return count


@lru_cache(maxsize=4)
def _read_pool(data: OwnData, state: tuple[Any, ...]) -> Pool:
    folder = Path(data.source)
    if num_homes(folder):
        found = _of_homes(folder)
        return _of_files(found, HOME)
    if is_saved(folder) or _holds_tables(folder) or not (folder.exists() or _names_a_path(data.source)):
        return _of_rows(data)
    return _of_files(list_folder(folder), data.label_column)


def _of_homes(folder: Path) -> list[ListedImage]:
    found = []
    for client in range(num_homes(folder)):
        root = home_of(folder, client)
        own = ImageStore(Home.open(root)).listed()
        if not own:
            raise UserError(f"{root} has no pictures: add some with `fedaigc device add-images`")
        found += [ListedImage(each.path, each.caption, {HOME: root.name}) for each in own]
    return found


def _of_files(listed: Sequence[ListedImage], label_column: str | None) -> Pool:
    names = list(dict.fromkeys(key for each in listed for key in each.columns))
    columns = {name: [each.columns.get(name) for each in listed] for name in names}
    return Pool(
        names=tuple(str(each.path) for each in listed),
        captions=tuple(each.caption for each in listed),
        columns=columns,
        label_column=_label_column(label_column, columns),
        _bytes=lambda number: listed[number].path.read_bytes(),
    )


def _of_rows(data: OwnData) -> Pool:
    import datasets

    try:
        rows = load_data_set(
            data.source, image_column=data.image_column, caption_column=data.caption_column, split=data.split
        )
    except UserError as error:
        if Path(data.source).exists():
            raise
        raise UserError(f"no folder {data.source!r}, and as a hub name: {error}") from None
    if not isinstance(rows.features["image"], datasets.Image):
        raise UserError(
            f"column {data.image_column!r} of {data.source!r} holds no pictures: name another one"
        )
    if not len(rows):
        raise UserError(f"data set {data.source!r} (split {data.split!r}) has no rows")
    encoded = rows.cast_column("image", datasets.Image(decode=False))
    names = [f"row {number} of {data.source}" for number in range(len(rows))]
    captions = [
        checked_caption("" if text is None else str(text), name)
        for text, name in zip(rows["caption"], names, strict=True)
    ]
    columns = {name: _values(rows, name) for name in rows.column_names if name not in ("image", "caption")}
    return Pool(
        names=tuple(names),
        captions=tuple(captions),
        columns=columns,
        label_column=_label_column(data.label_column, columns),
        _bytes=lambda number: _encoded(encoded[number]["image"], names[number]),
    )


def _values(rows: "datasets.Dataset", column: str) -> list[Any]:
    feature = rows.features[column]
    # a ClassLabel holds numbers, and its names are clearer
    name = getattr(feature, "int2str", None)
    return [value if value is None or name is None else name(value) for value in rows[column]]


def _encoded(image: Mapping[str, Any] | None, name: str) -> bytes:
    if image is None:
        raise UserError(f"{name} has no picture: fill it in, or leave the row out")
    if image.get("bytes") is not None:
        return bytes(image["bytes"])
    try:
        return Path(image["path"]).read_bytes()
    except OSError as error:
        raise UserError(f"{name}: {image['path']}: {error.strerror}") from None


def _label_column(asked: str | None, columns: Mapping[str, Any]) -> str | None:
    if asked is not None and asked not in columns:
        known = ", ".join(sorted(columns)) or "none"
        raise UserError(f"the pictures have no column {asked!r} for labels: expected one of theirs ({known})")
    return asked if asked is not None else LABEL if LABEL in columns else None


def _holds_tables(folder: Path) -> bool:
    if not folder.is_dir() or (folder / CAPTIONS).exists():
        return False
    if any(path.suffix.lower() in _PICTURES for path in folder.iterdir()):
        return False
    return any(path.suffix in _TABLES for path in folder.rglob("*"))


def _names_a_path(source: str) -> bool:
    """Whether a source is meant as a path: hub names are "name" or "owner/name"."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source


def _state_of(folder: Path) -> tuple[Any, ...]:
    """What changes whenever a file in a folder does."""
    if not folder.is_dir():
        return ()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
