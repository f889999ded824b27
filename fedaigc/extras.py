"""Packages that only some commands need, and the extra of this project that installs each of them.

A function that needs an extra calls `require_extra` before its imports. The rest of the project works without.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fedaigc.errors import UserError

Extra = Literal["discovery", "peer", "perceptual", "plots", "radio", "server", "tensorboard"]
# packages by their import names
PACKAGES: dict[Extra, tuple[str, ...]] = {
    "discovery": ("zeroconf",),
    "peer": ("spake2",),
    "perceptual": ("torchvision",),
    "plots": ("matplotlib",),
    "radio": ("sionna",),
    "server": ("cryptography", "fastapi", "starlette"),
    "tensorboard": ("tensorboard",),
}


# libraries whose names a user's own modules have by chance
LIBRARIES = (
    "cryptography",
    "datasets",
    "diffusers",
    "flwr",
    "httpx",
    "jinja2",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "PIL",
    "pydantic",
    "ray",
    "rich",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
    "typer",
)


class HiddenLibrary(UserError, ImportError):
    """A module of the user has the name of a library; the message names its file."""


def check_libraries() -> None:
    """Refuse to go on where the folder of the running script, or the working folder, hides a library.

    Python searches this folder first. A library that is installed nowhere else is not hidden.

    Raises:
        HiddenLibrary: For the first such module.
    """
    if sys.flags.safe_path or not sys.path:
        return
    first = Path(sys.path[0]).absolute()
    for name in LIBRARIES:
        own = next(
            (file for file in (first / name / "__init__.py", first / f"{name}.py") if file.is_file()), None
        )
        if own is not None and any(
            (Path(entry) / name / "__init__.py").is_file()
            for entry in sys.path[1:]
            if Path(entry).absolute() != first
        ):
            raise HiddenLibrary(f"{own} hides the library of that name, which fedaigc needs: rename it")


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
    missing = _missing(extra)
    if missing:
        raise MissingExtra(
            f'{what} need {" and ".join(missing)}, not installed here: run `pip install "fedaigc[{extra}]"`'
        )


def has_extra(extra: Extra) -> bool:
    """Return whether all packages of an extra are installed. Nothing is imported."""
    return not _missing(extra)


def _missing(extra: Extra) -> list[str]:
    return [package for package in PACKAGES[extra] if find_spec(package) is None]
