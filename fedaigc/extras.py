"""Packages that only some commands need, and the extra of this project that installs each of them.

A function that needs an extra calls `require_extra` before its imports. The rest of the project works without.
"""

from importlib.util import find_spec
from typing import Literal

from fedaigc.errors import UserError

Extra = Literal["perceptual", "plots", "radio", "server", "tensorboard"]
# packages by their import names
PACKAGES: dict[Extra, tuple[str, ...]] = {
    "perceptual": ("torchvision",),
    "plots": ("matplotlib",),
    "radio": ("sionna",),
    "server": ("cryptography", "fastapi", "starlette"),
    "tensorboard": ("tensorboard",),
}


class MissingExtra(UserError, ImportError):
    """A package of an extra is not installed; the message names the package and the extra."""


def require_extra(extra: Extra, what: str) -> None:
    """Refuse to go on unless all packages of an extra are installed. Nothing is imported.

    Args:
        extra: Name of the extra.
        what: What needs it, as a plural: the start of the message.

    Raises:
        MissingExtra: If a package is missing.
    """
    missing = [package for package in PACKAGES[extra] if find_spec(package) is None]
    if missing:
        raise MissingExtra(
            f'{what} need {" and ".join(missing)}, not installed here: run `pip install "fedaigc[{extra}]"`'
        )
