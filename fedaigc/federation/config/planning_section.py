"""The section `generation.planning`: what a planner minimises, and what it knows of the damage by sharing."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedaigc.federation.config.model_config import Section
from fedaigc.semantics.denoiser.shipped import SCENES

PlannerName = Literal[
    "none",
    "exact_match",
    "random_groups",
    "kmeans",
    "fixed",
    "nirvana",
    "modm",
    "ward",
    "two_levels",
    "greedy_tree",
    "optimal",
]
# nodes of these planners' trees have conditionings of their own
TREES: tuple[PlannerName, ...] = ("nirvana", "modm", "ward", "greedy_tree", "optimal")


class PlanningSection(Section):
    """What `generation.planner` minimises, and what it knows of the damage by sharing.

    Attributes:
        cost: What is minimised: denoising steps of all machines ("steps"), or their joules by the built-in profiles of
            an edge server and a phone ("joules").
        calibration: File of `fedaigc calibrate`, for prompts that are compared by concepts; with the section
            `generation.denoiser` its own counts. None: the one that ships with the embedded model for captions of
            Scenes.
        tolerance: Largest damage of a picture, as in `generation.denoiser`, for prompts that are compared by concepts.
        risk: Largest share of pictures beyond the tolerance, likewise.
    """

    cost: Literal["steps", "joules"] = "steps"
    calibration: Path | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    risk: Annotated[float, Field(ge=0, le=1)] = 0.2

    @property
    def of_concepts(self) -> list[str]:
        """Names of the keys that only count where prompts are compared by concepts, and are not at their defaults."""
        names = ("calibration", "tolerance", "risk")
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]

    def absolute(self) -> "PlanningSection":
        """Return the section with an absolute path."""
        if self.calibration in (None, SCENES):
            return self
        assert self.calibration is not None
        return self.model_copy(update={"calibration": self.calibration.absolute()})
