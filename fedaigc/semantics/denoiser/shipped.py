"""The atlas and the calibrations that ship with the embedded model, for the default settings of a run.

There are two calibrations of the same plan. Which one holds depends on the prompts: at the same sharing distance, more
pictures change by much among captions of any words than among captions of Scenes, which the model draws reliably.
"""

from pathlib import Path

from fedaigc import assets
from fedaigc.diffusion.loading import EMBEDDED
from fedaigc.errors import UserError

ATLAS = "embedded.atlas"
CALIBRATION = "embedded_calibration.json"
SCENES_CALIBRATION = "scenes_calibration.json"
SCENES = Path("scenes")
"""In place of a calibration's path: the one that ships for captions of Scenes."""


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
        calibration: File of the calibration. `SCENES`: the one that ships for captions of Scenes. None with an atlas:
            no calibration.
        model: Name of the model.

    Raises:
        UserError: As `shipped_files`.
    """
    if calibration == SCENES:
        shipped_files(model)  # for another model it is refused
        calibration = assets.path(SCENES_CALIBRATION)
    if atlas is not None:
        return atlas, calibration
    own, measured = shipped_files(model)
    return own, calibration if calibration is not None else measured
