"""Data sets other than Scenes: any `datasets` data set with an image column and a caption column."""

from pathlib import Path
from typing import TYPE_CHECKING

from fedaigc.errors import UserError

if TYPE_CHECKING:
    import datasets


def load_data_set(
    name: str,
    *,
    image_column: str = "image",
    caption_column: str = "caption",
    split: str = "train",
) -> "datasets.Dataset":
    """Load a data set, with the columns `image` and `caption`.

    All other columns are kept. For a folder of images see `fedaigc.data.pictures.folder.read_folder`.

    Args:
        name: Hub name, path of files that `datasets.load_dataset` reads, or folder of `save_to_disk`.
        image_column: Column to rename to `image`.
        caption_column: Column to rename to `caption`.
        split: Split of the data set.

    Raises:
        UserError: If the data set does not exist, is unreachable, or does not have a column.
    """
    import datasets

    try:
        rows = _saved(Path(name), split) if is_saved(Path(name)) else datasets.load_dataset(name, split=split)
    except (OSError, ValueError, ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"data set {name!r} (split {split!r}) could not be loaded: {reason}") from error
    if image_column == caption_column:
        raise UserError(f"{image_column!r} is the column of both images and captions: name one for each")
    chosen = (("image", image_column), ("caption", caption_column))
    for wanted, column in chosen:
        if column not in rows.column_names:
            raise UserError(
                f"data set {name!r} has no column {column!r} for the {wanted}: "
                f"expected one of {', '.join(rows.column_names)}"
            )
    for wanted, column in chosen:
        if column != wanted:
            if wanted in rows.column_names:
                rows = rows.remove_columns(wanted)
            rows = rows.rename_column(column, wanted)
    return rows


def is_saved(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk` of `datasets`."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _saved(folder: Path, split: str) -> "datasets.Dataset":
    """Load a folder of `save_to_disk`; a data set that was saved without splits has none to choose."""
    import datasets

    found = datasets.load_from_disk(str(folder))
    if isinstance(found, datasets.Dataset):
        return found
    if split not in found:
        raise ValueError(f"expected one of the splits {', '.join(found)}")
    return found[split]
