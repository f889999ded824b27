"""Runs that an output folder held before: put aside in its folder `earlier`, from where they can be resumed."""

from pathlib import Path

from fedaigc.federation.output.board import FOLDER as BOARD
from fedaigc.federation.output.checkpoint import CHECKPOINT, EARLIER
from fedaigc.federation.output.recorder import SHARED_STATE
from fedaigc.federation.output.records import GENERATIONS, RECORD
from fedaigc.federation.output.run_lock import RUN_ID, starting_in, writing_to
from fedaigc.storage.private_files import private_files

EARLIER_RUNS = "earlier"
FLOWER_LOG = "flower.log"
# the record last: a process that dies before leaves a run that is found again
_FILES = (BOARD, FLOWER_LOG, GENERATIONS, SHARED_STATE, CHECKPOINT, EARLIER, RUN_ID, RECORD)


def put_aside(output: Path) -> Path:
    """Move the run in an output folder into a new folder below it, and return that one.

    Raises:
        UserError: If a run writes to the output.
    """
    with private_files(), starting_in(output), writing_to(output):
        number = 1
        while (target := output / EARLIER_RUNS / f"{number:03d}" / RECORD).exists():
            number += 1
        folder = target.parent
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if (output / name).exists():
                (output / name).rename(folder / name)
    return folder
