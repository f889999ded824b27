"""Why a client of a simulation failed: the end of its log, which lies on the same machine.

Devices on separate machines tell only the kind of a failure.
"""

from fedaigc.device.home.home import ERROR_LOG
from fedaigc.device.replies import Failure
from fedaigc.federation.config.run_config import FederationConfig

_TRACEBACK = "Traceback (most recent call last):"
_MAX_CHARACTERS = 20_000
# kinds that say all that there is to say, or that the client's log does not explain
_PLAIN = (
    Failure.NO_IMAGES,
    Failure.UNREACHABLE,
    Failure.LATE,
    Failure.DROPPED_OUT,
    Failure.DIVERGED,
    Failure.UNREADABLE,
)


def explained(client: int, failure: Failure, config: FederationConfig) -> tuple[str, str | None]:
    """Return one line on a client's failure, and in a simulation the traceback, as far as its kind needs one.

    Args:
        client: The client.
        failure: The kind of failure that it reported.
        config: Configuration of the run; with bindings it runs on separate machines.
    """
    line, traceback = f"client {client}: {failure.value}", None
    if config.bindings is None and failure not in _PLAIN:
        log = config.home(client) / ERROR_LOG
        try:
            text = log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return line, None
        _, found, last = text.rpartition(_TRACEBACK)
        if found:
            # a nested error has several of them, and the outermost is the last
            traceback = f"{found}{last}".rstrip()[-_MAX_CHARACTERS:]
            line += f": {traceback.splitlines()[-1]:.300} (log: {log})"
    return line, traceback
