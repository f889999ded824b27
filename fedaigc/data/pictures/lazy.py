"""Many pictures, of which only those that are asked for are in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from PIL import Image

from fedaigc.data.pictures.decode import read_picture


class PictureFiles(Sequence[Image.Image]):
    """The pictures in files, in RGB and upright, each read when it is asked for.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, place: int) -> Image.Image: ...
    @overload
    def __getitem__(self, place: slice) -> list[Image.Image]: ...
    def __getitem__(self, place: int | slice) -> Image.Image | list[Image.Image]:
        """Read one picture, or those of a slice."""
        if isinstance(place, slice):
            return [read_picture(path) for path in self._paths[place]]
        return read_picture(self._paths[place])
