"""The section `generation.denoiser`: prompts are compared by the model itself, with a public atlas."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from fedaigc.federation.config.model_config import Section


class DenoiserSection(Section):
    """Sharing by the denoiser's own answers, for prompts of any words, in place of concepts and `policy`.

    A device discloses a node of a public atlas; the shared steps of a group run on a public caption of its node.

    Attributes:
        atlas: File of the atlas, from `fedaigc atlas build` with this model.
        min_captions: m, how many public captions must disclose the same node.
        min_devices: k, how many devices must have tasks in a group.
        calibration: File of `fedaigc calibrate` for this model, scheduler, steps and guidance. With it a device shares
            only where the damage is within `tolerance`, and may be grouped at higher nodes. None: always at its node.
        tolerance: Largest damage: the change of the final latents, as a share.
        noises: Public noises that a prompt is asked with, as for the atlas.
        dimensions: Numbers that each answer is projected to, as for the atlas.
    """

    atlas: Path
    min_captions: Annotated[int, Field(ge=1)] = 8
    min_devices: Annotated[int, Field(ge=2)] = 2
    calibration: Path | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.35
    noises: Annotated[int, Field(ge=1)] = 1
    dimensions: Annotated[int, Field(ge=0)] = 64

    def absolute(self) -> "DenoiserSection":
        """Return the section with absolute paths."""
        paths = {"atlas": self.atlas.absolute()}
        if self.calibration is not None:
            paths["calibration"] = self.calibration.absolute()
        return self.model_copy(update=paths)
