"""The section `generation.denoiser`: prompts are compared by the model itself, with a public atlas."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedaigc.bounds import MAX_EPSILON, MAX_LADDER
from fedaigc.federation.config.model_config import Section
from fedaigc.semantics.denoiser.shipped import SCENES

OWN_FILE = "own"
"""In place of a path: the file that the device's owner chose."""


class DenoiserSection(Section):
    """Sharing by the denoiser's own answers, for prompts of any words, in place of concepts and `policy`.

    A device discloses a node of a public atlas; the shared steps of a group run on a public caption of its node.

    Attributes:
        atlas: File of the atlas, from `fedaigc atlas build` with this model. None: the one that ships with the embedded
            model; other models have none.
        min_captions: m, how many public captions must disclose the same node.
        min_devices: k, how many devices must have tasks in a group.
        calibration: File of `fedaigc calibrate` for this model, scheduler, steps and guidance. With it a device shares
            only where the damage is within `tolerance`, and may be grouped at higher nodes. None: the one that ships
            with the shipped atlas; with an atlas of your own, no calibration: always at its node. "scenes": the one
            that ships with the embedded model for captions of Scenes, by which these share more steps.
        tolerance: Largest damage of a picture: the change of its final latents, as a share.
        risk: Largest share of pictures beyond the tolerance, by the upper end of its interval.
        ladder: Further hand-offs after `num_shared_steps`, ascending. Each device takes the last one that its tolerance
            allows, and the server learns which. Needs a calibration and the edge as executor. Empty: one for all.
        noises: Public noises that a prompt is asked with, as for the atlas.
        dimensions: Numbers that each answer is projected to, as for the atlas.
        epsilon: Epsilon of local differential privacy with which each device draws its node, see
            `semantics.denoiser.local_privacy`. A calibration then decides what a device answers to a ladder, and not
            what it discloses, so it needs a ladder. None: no noise, unless the owner of a device wants some.
        conditioning: What the shared steps of a group run on: "public", its public caption; "mean", the mean of its
            members' text embeddings, from a sum of which the server sees no part, for groups of three devices and more;
            "member", the embeddings of one member, which the server is sent as they are, in simulations only.
        noise_epsilon: Epsilon of Gaussian noise on a mean, at delta 1e-5; None: no noise.
        equal_prompts: Whether devices test which of them have equal prompts. One of these then runs all steps that can
            be shared on its own prompt, and the others finish from what it seals to them. The server learns which tasks
            are equal, and nothing else of them. Owners of separate machines have to permit it.
    """

    atlas: Path | None = None
    min_captions: Annotated[int, Field(ge=1)] = 8
    min_devices: Annotated[int, Field(ge=2)] = 2
    calibration: Path | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    risk: Annotated[float, Field(ge=0, le=1)] = 0.2
    ladder: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MAX_LADDER - 1)] = ()
    noises: Annotated[int, Field(ge=1)] = 1
    dimensions: Annotated[int, Field(ge=0)] = 64
    epsilon: Annotated[float, Field(gt=0, le=MAX_EPSILON)] | None = None
    conditioning: Literal["public", "mean", "member"] = "public"
    noise_epsilon: Annotated[float, Field(gt=0)] | None = None
    equal_prompts: bool = False

    @model_validator(mode="after")
    def _noise_on_a_mean(self) -> "DenoiserSection":
        if self.noise_epsilon is not None and self.conditioning != "mean":
            raise ValueError(
                f'noise_epsilon: conditioning is "{self.conditioning}", and only a mean has noise; set it to "mean"'
            )
        return self

    @model_validator(mode="after")
    def _noise_leaves_the_tolerance_to_the_ladder(self) -> "DenoiserSection":
        # without an atlas there is the shipped calibration
        calibrated = self.calibration is not None or self.atlas is None
        if self.epsilon is not None and calibrated and not self.ladder:
            raise ValueError(
                "epsilon and calibration need a ladder: a node with noise may be far from the prompt, and a device can "
                "keep to its tolerance only by its answer to a ladder; add one, or remove epsilon, or name an atlas "
                "without a calibration"
            )
        return self

    def absolute(self) -> "DenoiserSection":
        """Return the section with absolute paths."""
        given = {"atlas": self.atlas, "calibration": self.calibration}
        return self.model_copy(
            update={name: path.absolute() for name, path in given.items() if path not in (None, SCENES)}
        )

    def for_devices(self) -> "DenoiserSection":
        """Return what the devices of a deployment receive: each has files of its own."""
        return self.model_copy(update={"atlas": Path(OWN_FILE), "calibration": None, "min_devices": 2})
