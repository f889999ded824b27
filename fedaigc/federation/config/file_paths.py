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


def place_model(values: Mapping[str, Any], folder: Path) -> None:
    """Make the path of the section `model` count from a folder, unless it is a hub name.

    Raises:
        UserError: If the folder of the model is not there, but in the working folder.
    """
    section = values.get("model")
    name = section.get("name") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(name, str) or name in SHIPPED:
        return
    if (folder / name).is_dir():
        section["name"] = str(folder / name)
    elif Path(name).is_dir():
        raise UserError(
            f"model.name = {name!r}: no such folder in {folder}, from where the paths in this file count; the one "
            f"in the working folder is {str(Path(name).absolute())!r}"
        )


def place_strategy(section: Any, key: str, folder: Path) -> None:
    """Make a strategy that is named by its file count from a folder."""
    name = section.get(key) if isinstance(section, dict) else None
    if isinstance(name, str) and is_file(name):
        section[key] = str(folder / name)


def place_start(section: Any, folder: Path) -> None:
    """Make the path of the LoRA in the section `adapter` count from a folder."""
    if isinstance(section, dict):
        place_paths(section, ("start_from",), folder)


def place_clip(section: Any, folder: Path) -> None:
    """Make the path of the CLIP model in the section `generation` count from a folder, unless it is a hub name."""
    name = section.get("clip_model") if isinstance(section, dict) else None
    if isinstance(name, str) and (folder / name).is_dir():
        section["clip_model"] = str(folder / name)


def place_atlas(section: Any, folder: Path) -> None:
    """Make the files of the sections `generation.denoiser` and `generation.planning` count from a folder."""
    for name in ("denoiser", "planning"):
        if isinstance(section, dict) and isinstance(section.get(name), dict):
            named = section[name].get("calibration") == str(SCENES)
            place_paths(section[name], ("atlas",) if named else ("atlas", "calibration"), folder)
