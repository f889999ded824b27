"""What ships with the package: the model, the judge, the sprites, the knowledge graph."""

from importlib.resources import files
from pathlib import Path

from fedaigc.errors import UserError


def path(name: str) -> Path:
    """The path of the shipped file or folder `name`, e.g. "model" or "concepts.json".

    Raises UserError when the installation lacks it.
    """
    found = Path(str(files(__name__))) / name
    if not found.exists():
        raise UserError(
            f"the shipped asset {name!r} is missing from this installation ({found}): reinstall fedaigc"
        )
    return found
