"""A shared state as a file: what a run leaves, and what a device keeps of what it was sent."""

from pathlib import Path
from typing import Any

from torch import Tensor

from fedaigc.diffusion.adapters.state import SharedState
from fedaigc.errors import DamagedFile
from fedaigc.storage.tensor_file import read_parts, write_parts

PART = "shared"
_ANY_MODE = 0o666


def write_shared_state(path: Path, shared: SharedState, mode: int = _ANY_MODE) -> None:
    """Write a shared state, whole or not at all."""
    write_parts(path, {PART: shared.header()}, {PART: shared.tensors()}, mode)


def read_shared_state(path: Path) -> SharedState:
    """The inverse of `write_shared_state`.

    Raises UserError when the file is not there, DamagedFile when it holds no shared state or not what was written.
    """
    return shared_state_of(path, *read_parts(path))


def shared_state_of(path: Path, header: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> SharedState:
    """The shared state among the parts of a file. DamagedFile when there is none."""
    if PART not in header:
        raise DamagedFile(f"{path} holds no shared state: remove it")
    return SharedState.from_tensors(header[PART], parts.get(PART, {}))
