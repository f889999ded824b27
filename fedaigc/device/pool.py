"""Captioned pictures of a researcher's own: from a folder, a `datasets` data set or existing homes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedaigc.data.partition import PartitionSettings, partition
from fedaigc.data.pictures.captioned import CaptionedImage, ListedImage
from fedaigc.data.pictures.captions import captions_of
from fedaigc.data.pictures.decode import decoded
from fedaigc.data.pictures.folder import LABEL, list_folder
from fedaigc.data.pictures.lists import CAPTIONS
from fedaigc.data.pictures.reading import BACKGROUND, SEVERAL, STORED_SIZE, Reading, SubFolders, Tally
from fedaigc.data.pictures.rows import caption_names, content_of, undecoded
from fedaigc.data.sources import is_saved, load_data_set
from fedaigc.device.home.home import Home, home_of
from fedaigc.device.home.images import ImageStore
from fedaigc.errors import UserError

if TYPE_CHECKING:
    import datasets

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
        caption_column: Column of the captions, in a data set or in the folder's list.
        label_column: Column of the labels: a column of the data set, or a key of the folder's list of captions.
            None: "label", if there is one.
        split: Split of the data set.
        background: Colour behind transparent pictures: a name such as "white", or "#rrggbb".
        size: Short side in pixels to which larger pictures are reduced; it may not be below the size of the model.
            0 keeps their size.
        skip_broken: Whether to leave out what cannot be read, or has no caption, and go on.
        sub_folders: What to do with sub-folders: "refuse", "read", or "classes", whose names are the labels of the
            pictures, and the captions of those without another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    image_column: str = "image"
    caption_column: str = "caption"
    label_column: str | None = None
    split: str = "train"
    background: str = BACKGROUND
    size: Annotated[int, Field(ge=0)] = STORED_SIZE
    skip_broken: bool = False
    sub_folders: SubFolders = "refuse"

    @model_validator(mode="after")
    def _has_a_colour(self) -> "OwnData":
        try:
            self.reading.colour  # noqa: B018
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def reading(self) -> Reading:
        """How the pictures are read."""
        return Reading(
            self.background,
            self.size,
            self.skip_broken,
            self.sub_folders,
            self.caption_column,
            self.image_column,
        )


@dataclass(frozen=True, eq=False)
class Pool:
    """Own pictures, which are read one by one.

    Attributes:
        names: Name of each picture: its file, or its row.
        captions: Its captions, at least one.
        columns: Further columns, by name.
        label_column: The column of the labels; None without labels.
        reading: How pictures are read.
        skipped: What was left out, and why.
    """

    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    columns: Mapping[str, Sequence[Any]]
    label_column: str | None
    reading: Reading
    _bytes: Callable[[int], bytes]
    skipped: tuple[str, ...] = ()
    _digests: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, number: int, tally: Tally | None = None) -> CaptionedImage:
        """Return one picture, in RGB and upright.

        Args:
            number: Its number.
            tally: Counts what was done.

        Raises:
            UserError: If it cannot be read; the message names it.
        """
        name, tally = self.names[number], Tally() if tally is None else tally
        caption, *others = self.captions[number]
        # what is broken was left out before, if it is to be
        with tally.skipping(replace(self.reading, skip_broken=False)):
            found = decoded(self._bytes(number), self.reading, tally, name)
        tally.counts.update([SEVERAL] if others else [])
        return CaptionedImage(found.image, caption, name, tuple(others), found.reduced, found.photograph)

    def check(self) -> None:
        """Read every picture once.

        Raises:
            UserError: If one cannot be read; the message names it.
        """
        for number in range(len(self)):
            self.picture(number)

    def without_broken(self, tally: Tally) -> "Pool":
        """Return the pictures that can be read, if the reading says so; all of them otherwise.

        Raises:
            UserError: If none can be read.
        """
        kept = list(range(len(self)))
        if self.reading.skip_broken:
            kept = []
            for number, name in enumerate(self.names):
                with tally.skipping(self.reading):
                    decoded(self._bytes(number), self.reading, Tally(), name)
                    kept.append(number)
        if not kept:
            raise UserError(
                f"none of the pictures can be read; the first: {(*tally.skipped, 'there is none')[0]}"
            )
        return replace(
            self,
            names=tuple(self.names[number] for number in kept),
            captions=tuple(self.captions[number] for number in kept),
            columns={name: [values[number] for number in kept] for name, values in self.columns.items()},
            _bytes=lambda number: self._bytes(kept[number]),
            _digests=[],
            skipped=tuple(tally.skipped),
        )

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
        for number, (captions, encoded) in enumerate(zip(self.captions, self._hashes(), strict=True)):
            total.update(
                encoded + "\0".join([*captions, *(each[number] for each in labels)]).encode() + b"\0"
            )
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
                    f"every picture has the {column} {labels[0]!r}: a partition of the kind "
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
    folder, tally = Path(data.source), Tally()
    if num_homes(folder):
        pool = _of_files(_of_homes(folder), HOME, data.reading)
    elif is_saved(folder) or _holds_tables(folder) or not (folder.exists() or _names_a_path(data.source)):
        pool = _of_rows(data, tally)
    else:
        pool = _of_files(list_folder(folder, data.reading, tally), data.label_column, data.reading)
    return pool.without_broken(tally)


def _of_homes(folder: Path) -> list[ListedImage]:
    found = []
    for client in range(num_homes(folder)):
        root = home_of(folder, client)
        own = ImageStore(Home.open(root)).listed()
        if not own:
            raise UserError(f"{root} has no pictures: add some with `fedaigc device add-images`")
        found += [ListedImage(each.path, each.captions, {HOME: root.name}) for each in own]
    return found


def _of_files(listed: Sequence[ListedImage], label_column: str | None, reading: Reading) -> Pool:
    names = list(dict.fromkeys(key for each in listed for key in each.columns))
    columns = {name: [each.columns.get(name) for each in listed] for name in names}
    return Pool(
        names=tuple(str(each.path) for each in listed),
        captions=tuple(each.captions for each in listed),
        columns=columns,
        label_column=_label_column(label_column, columns),
        reading=reading,
        _bytes=lambda number: listed[number].path.read_bytes(),
    )


def _of_rows(data: OwnData, tally: Tally) -> Pool:
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
    encoded, text = undecoded(rows, "image").select_columns(["image"]), caption_names(rows, "caption")
    captions, kept = [], []
    for number, value in enumerate(rows["caption"]):
        with tally.skipping(data.reading):
            captions.append(captions_of(text(value), f"row {number} of {data.source}"))
            kept.append(number)
    names = [f"row {number} of {data.source}" for number in kept]
    columns = {name: _values(rows, name) for name in rows.column_names if name not in ("image", "caption")}
    return Pool(
        names=tuple(names),
        captions=tuple(captions),
        columns={name: [values[number] for number in kept] for name, values in columns.items()},
        label_column=_label_column(data.label_column, columns),
        reading=data.reading,
        _bytes=lambda number: content_of(encoded[kept[number]]["image"], names[number], data.image_column),
    )


def _values(rows: "datasets.Dataset", column: str) -> list[Any]:
    feature = rows.features[column]
    # a ClassLabel holds numbers, and its names are clearer
    name = getattr(feature, "int2str", None)
    return [value if value is None or name is None else name(value) for value in rows[column]]


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
