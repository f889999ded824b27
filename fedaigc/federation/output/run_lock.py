"""The right to write to a run's folder and to train under its name in homes, which one run at a time has."""

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.storage.atomic_file import write_file
from fedaigc.storage.file_lock import locked

_LOCK = ".run.lock"
# in an output folder: which run it holds; `.<name>.run` in the homes: which run of this name trained there last
_RUN = ".run-id"


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


@contextmanager
def training_in(config: FederationConfig, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the right to train under the run's name in the homes.

    Homes keep the rounds of a run under its name alone, so another run of this name would drop them or continue
    from them.

    Args:
        config: Of the run.
        patience_s: Seconds to wait for a run that ends.

    Raises:
        UserError: If another run of this name trains there.
    """
    busy = (
        f"another run named {config.name!r} trains in the homes {config.homes}: wait for its end, or give this run "
        "another `name`"
    )
    with locked(config.homes / f".{config.name}.lock", busy=busy, patience_s=patience_s):
        yield


def claim_homes(config: FederationConfig) -> None:
    """Note in the homes and in the output that the rounds of this name belong to this output from now on."""
    run = secrets.token_hex(16).encode()
    config.output.mkdir(parents=True, exist_ok=True)
    write_file(config.output / _RUN, run)
    write_file(_claim(config), run)


def check_claim(config: FederationConfig) -> None:
    """Check that what the homes keep under the run's name are the rounds of the run in its output.

    Raises:
        UserError: If a run with another output has trained under this name since.
    """
    own, last = _read(config.output / _RUN), _read(_claim(config))
    if own and last and own != last:
        raise UserError(
            f"the run in {config.output} cannot be resumed: another run named {config.name!r} has trained in the homes "
            f"{config.homes} since, and replaced its rounds there; start anew, and give each run a `name` of its own"
        )


def _claim(config: FederationConfig) -> Path:
    return config.homes / f".{config.name}.run"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
