"""Store a shared state in a file: the result of a run, or a device's copy of a state that it received."""

from pathlib import Path
from typing import Any

from torch import Tensor

from fedaigc.diffusion.adapters.state import SharedState
from fedaigc.errors import DamagedFile
from fedaigc.storage.tensor_file import read_parts, write_parts

PART = "shared"
_ANY_MODE = 0o666


def write_shared_state(path: Path, shared: SharedState, mode: int = _ANY_MODE) -> None:
    """Write a shared state to a file atomically."""
    write_parts(path, {PART: shared.header()}, {PART: shared.tensors()}, mode)


def read_shared_state(path: Path) -> SharedState:
    """Read a file written by `write_shared_state`.

    Raises:
        UserError: If the file does not exist.
        DamagedFile: If the file holds no shared state, or values other than those written.
    """
    return shared_state_of(path, *read_parts(path))


def shared_state_of(path: Path, header: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> SharedState:
    """Return the shared state among the header and parts of a file.

    Raises:
        DamagedFile: If there is none.
    """
    if PART not in header:
        raise DamagedFile(f"{path} contains no shared state: remove the file")
    return SharedState.from_tensors(header[PART], parts.get(PART, {}))
