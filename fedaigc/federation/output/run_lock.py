"""The right to write to a run's folder and to work in a folder of homes, which one run at a time has."""

import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from fedaigc.device.home.home import AGENT_LOCK, RUN_LOCK
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.storage.atomic_file import write_file
from fedaigc.storage.file_lock import is_locked, locked

# held by the process that writes the record, and by the process that started it
_WRITER_LOCK = ".run.lock"
_STARTER_LOCK = ".start.lock"
# in an output folder: the identity of the run that it holds
RUN_ID = ".run-id"
_ID = re.compile(r"[0-9a-f]{16}")


def writing_to(output: Path, patience_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the right to write to a run's folder.

    Args:
        output: Output folder of the run.
        patience_s: Seconds to wait for a run that ends.

    Raises:
        UserError: If another run writes to the folder.
    """
    return locked(output / _WRITER_LOCK, busy=_busy(output), patience_s=patience_s)


def starting_in(output: Path, patience_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold the right to start a run in a folder, until it has ended; see `writing_to`."""
    return locked(output / _STARTER_LOCK, busy=_busy(output), patience_s=patience_s)


def _busy(output: Path) -> str:
    return f"another run writes to {output}: wait for its end, or choose another output folder"


@contextmanager
def working_in(config: FederationConfig, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the right to train and draw in the homes of a simulation.

    Two runs would draw the same prompts, and drop the shared states that the other one draws with.

    Args:
        config: Of the run.
        patience_s: Seconds to wait for a run that ends.

    Raises:
        UserError: If another run works there, or the agent of one of the devices runs.
    """
    busy = (
        f"another run works in the homes {config.homes}: wait for its end, or give this run a copy of the homes "
        "(`homes` in its configuration)"
    )
    with locked(config.homes / RUN_LOCK, busy=busy, patience_s=patience_s):
        for client in range(config.num_clients):
            home = config.home(client)
            if is_locked(home / AGENT_LOCK):
                raise UserError(f"the agent of {home} runs: `fedaigc device stop {home}` ends it")
        yield


def new_identity(config: FederationConfig) -> FederationConfig:
    """Return the run with a new identity, and note it in its output folder."""
    run_id = secrets.token_hex(8)
    config.output.mkdir(parents=True, exist_ok=True)
    write_file(config.output / RUN_ID, run_id.encode())
    return config.model_copy(update={"run_id": run_id})


def same_identity(config: FederationConfig) -> FederationConfig:
    """Return the run with the identity of the one in its output folder, which it resumes.

    Raises:
        DamagedFile: If the identity cannot be read.
    """
    path = config.output / RUN_ID
    if not path.is_file():  # as of runs of earlier versions
        return config
    run_id = path.read_text(encoding="utf-8", errors="replace")
    if not _ID.fullmatch(run_id):
        raise DamagedFile(f"{path} is damaged: restore it from a copy, or start the run anew")
    return config.model_copy(update={"run_id": run_id})
