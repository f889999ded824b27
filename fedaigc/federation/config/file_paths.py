"""Relative paths in a configuration file count from its folder, those of the command line from the working folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedaigc.diffusion.loading import SHIPPED
from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.shipped import SCENES
from fedaigc.strategy.sources import is_file


def place_paths(values: dict[str, Any], keys: Sequence[str], folder: Path) -> None:
    """Make the relative paths of these keys count from a folder."""
    for key in keys:
        if isinstance(values.get(key), str):
            values[key] = str(folder / values[key])


def place_unless_hub_name(section: Any, name: str, folder: Path) -> None:
    """Make a path that may also be a hub name count from a folder; a hub name stays as it is.

    Args:
        section: The section that holds it, if it does.
        name: Its key, with the sections.
        folder: The folder.

    Raises:
        UserError: If there is nothing of this name, but in the working folder.
    """
    key = name.rpartition(".")[2]
    given = section.get(key) if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(given, str):
        return
    if (folder / given).exists():
        section[key] = str(folder / given)
    elif Path(given).exists():
        raise UserError(
            f"{name} = {given!r}: no such file or folder in {folder}, from where the paths in this file count; the one "
            f"in the working folder is {str(Path(given).absolute())!r}"
        )


def place_model(values: Mapping[str, Any], folder: Path) -> None:
    """Make the path of the section `model` count from a folder, unless it is a hub name or a shipped model.

    Raises:
        UserError: As `place_unless_hub_name`.
    """
    section = values.get("model")
    if not isinstance(section, dict) or section.get("name") not in tuple(SHIPPED):
        place_unless_hub_name(section, "model.name", folder)


def place_strategy(section: Any, key: str, folder: Path) -> None:
    """Make a strategy that is named by its file count from a folder."""
    name = section.get(key) if isinstance(section, dict) else None
    if isinstance(name, str) and is_file(name):
        section[key] = str(folder / name)


def place_start(section: Any, folder: Path) -> None:
    """Make the path of the LoRA in the section `adapter` count from a folder."""
    if isinstance(section, dict):
        place_paths(section, ("start_from",), folder)


def place_atlas(section: Any, folder: Path) -> None:
    """Make the files of the sections `generation.denoiser` and `generation.planning` count from a folder."""
    for name in ("denoiser", "planning"):
        if isinstance(section, dict) and isinstance(section.get(name), dict):
            named = section[name].get("calibration") == str(SCENES)
            place_paths(section[name], ("atlas",) if named else ("atlas", "calibration"), folder)
