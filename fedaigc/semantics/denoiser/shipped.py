"""The atlas and the calibration that ship with the embedded model, for the default settings of a run."""

from pathlib import Path

from fedaigc import assets
from fedaigc.diffusion.loading import EMBEDDED
from fedaigc.errors import UserError

ATLAS = "embedded.atlas"
CALIBRATION = "embedded_calibration.json"


def shipped_files(model: str) -> tuple[Path, Path]:
    """Return the paths of atlas and calibration of a model.

    Args:
        model: Name of the model: "embedded".

    Raises:
        UserError: If it is another model, or the files are missing.
    """
    if model != EMBEDDED:
        raise UserError(
            f"no atlas ships for the model {model!r}, only for {EMBEDDED!r}: build one from any list of captions with "
            "`fedaigc atlas build`, and name it"
        )
    return assets.path(ATLAS), assets.path(CALIBRATION)


def sharing_files(atlas: Path | None, calibration: Path | None, model: str) -> tuple[Path, Path | None]:
    """Return the paths of atlas and calibration of a run: without an atlas, those that ship with the model.

    Args:
        atlas: File of the atlas. None: the shipped one, with its calibration if none is given.
        calibration: File of the calibration; None with an atlas: no calibration.
        model: Name of the model.

    Raises:
        UserError: As `shipped_files`.
    """
    if atlas is not None:
        return atlas, calibration
    own, measured = shipped_files(model)
    return own, calibration if calibration is not None else measured
