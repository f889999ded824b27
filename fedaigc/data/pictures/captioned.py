"""A picture with its captions, before and after it is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class CaptionedImage:
    """An RGB image and its caption.

    Attributes:
        image: The image.
        caption: Its caption, or the first of several.
        file: The name of its file, where it came from a folder.
        others: Its further captions.
        reduced: Whether it was made smaller when it was read.
        photograph: Whether it came from a JPEG, which has lost details already.
    """

    image: Image.Image
    caption: str
    file: str = ""
    others: tuple[str, ...] = ()
    reduced: bool = False
    photograph: bool = False

    @property
    def captions(self) -> tuple[str, ...]:
        """All captions."""
        return (self.caption, *self.others)


@dataclass(frozen=True)
class ListedImage:
    """An image file that was not read yet, and its captions.

    Attributes:
        path: The file.
        captions: Its captions, at least one.
        columns: What else the folder's list says about it, by key.
    """

    path: Path
    captions: tuple[str, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)
