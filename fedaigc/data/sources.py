"""Data sets other than Scenes: any `datasets` data set with an image column and a caption column."""

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
    """Load a data set by hub name or path, with the columns `image` and `caption`.

    All other columns are kept. For a folder of images see `fedaigc.device.home.images.read_folder`.

    Args:
        name: Hub name or path.
        image_column: Column to rename to `image`.
        caption_column: Column to rename to `caption`.
        split: Split of the data set.

    Raises:
        UserError: If the data set does not exist, is unreachable, or does not have a column.
    """
    import datasets

    try:
        rows = datasets.load_dataset(name, split=split)
    except (OSError, ValueError, ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"data set {name!r} (split {split!r}) could not be loaded: {reason}") from error
    for wanted, column in (("image", image_column), ("caption", caption_column)):
        if column not in rows.column_names:
            raise UserError(
                f"data set {name!r} has no column {column!r} for the {wanted}: "
                f"expected one of {', '.join(rows.column_names)}"
            )
        if column != wanted:
            if wanted in rows.column_names:
                rows = rows.remove_columns(wanted)
            rows = rows.rename_column(column, wanted)
    return rows
