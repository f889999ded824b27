"""Upgrade of homes of earlier versions to the current format, applied when they are opened."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fedaigc.diffusion.adapters.shared_state_file import write_shared_state
from fedaigc.diffusion.adapters.state import SharedState
from fedaigc.errors import DamagedFile
from fedaigc.storage.private_files import PRIVATE_FILE
from fedaigc.storage.tensor_file import read_tensors, write_parts


def upgrade_from_1(root: Path) -> None:
    """Convert the rounds and shared states of format 1, folders of two files each, to single files.

    Format 2 stores each of them as one file. A process that dies in between leaves a home of format 1 that is
    partly converted.
    """
    for folder in _folders(root / "adapters" / "rounds", "*/[0-9]*"):
        target = folder.with_name(f"{folder.name}.safetensors")
        # written whole by a process that died while it removed the folder
        if not target.exists():
            header, tensors = _read(folder)
            parts: dict[str, dict[str, Tensor]] = {"personal": {}, "memory": {}}
            for name, tensor in tensors.items():
                part, _, own = name.partition("/")
                parts[part][own] = tensor
            write_parts(target, header, parts, PRIVATE_FILE)
        shutil.rmtree(folder)
    for folder in _folders(root / "adapters" / "shared", "*"):
        target = folder.with_name(f"{folder.name}.safetensors")
        if not target.exists():
            header, tensors = _read(folder)
            write_shared_state(target, SharedState.from_tensors(header, tensors), PRIVATE_FILE)
        shutil.rmtree(folder)


def _folders(parent: Path, pattern: str) -> list[Path]:
    """Return the folders, oldest first, so that the new files keep their order."""
    found = [path for path in parent.glob(pattern) if path.is_dir() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _read(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    try:
        header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DamagedFile(f"{folder / 'header.json'} is damaged: restore it, or remove {folder}") from None
    return header, read_tensors(folder / "tensors.safetensors")[1]
