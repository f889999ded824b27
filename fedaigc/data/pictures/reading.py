"""How pictures are read, and what reading them took: the options and the tally of all doors."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from fedaigc.errors import UserError

SubFolders = Literal["refuse", "read", "classes"]
# the largest side that most models are trained at, and that owners let servers ask for
STORED_SIZE = 1024
BACKGROUND = "white"
_SHOWN = 3

TRANSPARENT = "with transparency, put on {background}"
DEEP = "of 16 bits or floating-point numbers, scaled to 8 bits"
FIRST_FRAME = "with several frames, of which the first is taken"
PROFILE = "with a colour profile, converted to sRGB"
BAD_PROFILE = "with a damaged colour profile, read as sRGB"
REDUCED = "larger than {size} pixels on the short side, made smaller"
OBLONG = "longer on one side, of which training keeps the middle, in the aspect ratio of the model"
SEVERAL = "with several captions, of which training draws one at each use"


class BrokenPicture(UserError):
    """One picture, row or caption that cannot be read, or has no counterpart; with `skip_broken`, it is left out."""


@dataclass(frozen=True)
class Reading:
    """How pictures and captions are read.

    Attributes:
        background: Colour behind transparent pictures: a name such as "white", or "#rrggbb".
        size: Short side in pixels to which larger pictures are reduced. 0 keeps their size.
        skip_broken: Whether to leave out what cannot be read, or has no caption, and go on.
        sub_folders: "refuse", "read", or "classes": the name of the first folder becomes the label of a picture,
            and its caption where it has no other.
        caption_column: Column or key of the captions.
        image_column: Column of the images, in a data set.
    """

    background: str = BACKGROUND
    size: int = STORED_SIZE
    skip_broken: bool = False
    sub_folders: SubFolders = "refuse"
    caption_column: str = "caption"
    image_column: str = "image"

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UserError(
                f"size is {self.size}: expected a number of pixels, or 0 to keep the size of pictures"
            )
        self.colour  # noqa: B018 (checked now rather than at the first transparent picture)

    @property
    def colour(self) -> tuple[int, int, int]:
        """The background as red, green and blue.

        Raises:
            UserError: If it is no colour.
        """
        from PIL import ImageColor

        try:
            red, green, blue = ImageColor.getrgb(self.background)[:3]
        except ValueError:
            raise UserError(
                f'background is {self.background!r}: expected a colour, such as "white" or "#80c0ff"'
            ) from None
        return red, green, blue


# pictures keep their size, or are reduced to that of the largest models
AS_IT_IS = Reading(size=0)
AS_STORED = Reading()


@dataclass
class Tally:
    """What reading pictures took.

    Attributes:
        counts: Number of pictures by what was done to them.
        skipped: What was left out, and why.
    """

    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)

    def lines(self, reading: Reading) -> list[str]:
        """Return one line for each thing that was done to pictures."""
        found = [
            f"{count} {name.format(background=reading.background, size=reading.size)}"
            for name, count in self.counts.items()
        ]
        if self.skipped:
            more = len(self.skipped) - _SHOWN
            reasons = [*self.skipped[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
            found.append("\n  ".join([f"{len(self.skipped)} left out:", *reasons]))
        return found

    @contextmanager
    def skipping(self, reading: Reading) -> Iterator[None]:
        """Leave out what is broken, if the reading says so.

        Raises:
            UserError: Otherwise, with the advice.
        """
        try:
            yield
        except BrokenPicture as error:
            if not reading.skip_broken:
                raise UserError(
                    f"{error} (or leave out what is broken: --skip-broken, skip_broken)"
                ) from None
            self.skipped.append(str(error))
