"""The right to write to a run's folder, which one run at a time has."""

from contextlib import AbstractContextManager
from pathlib import Path

from fedaigc.storage.file_lock import locked

_LOCK = ".run.lock"


def writing_to(output: Path, patience_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the right to write to a run's folder.

    Args:
        output: Output folder of the run.
        patience_s: Seconds to wait for a run that ends.

    Raises:
        UserError: If another run writes to the folder.
    """
    busy = f"another run writes to {output}: wait for its end, or choose another output folder"
    return locked(output / _LOCK, busy=busy, patience_s=patience_s)
