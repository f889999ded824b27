"""A request for a plan: bounded numbers, from which the computing machine builds the plan itself.

A plan from another machine could name any scheduler with any configuration, and thus decide what runs on a
private prompt. A request contains only a scheduler from a short list, and numbers. All else (scheduler
configuration, timesteps, noise levels, dtype) comes from the locally installed pipeline. The fingerprint then
shows whether both machines mean the same plan.
"""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from fedaigc.bounds import (
    MAX_DENOISING_STEPS,
    MAX_GUIDANCE_SCALE,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_SIDE,
)
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed
from fedaigc.diffusion.schedule.model_settings import differences
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.errors import UserError
from fedaigc.storage.bounded_json import read_json

# deterministic schedulers and ancestral Euler. Each is tested for an exact hand-off
SCHEDULERS = frozenset(
    {
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "PNDMScheduler",
        "UniPCMultistepScheduler",
    }
)
_MAX_SETTINGS = 8192
_PART, _DIGEST = re.compile("[a-z0-9_ ]{1,64}"), re.compile("[0-9a-f]{16}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class PlanRequest:
    """The settings that define a plan, together with the local pipeline.

    Attributes:
        scheduler_class: One of `SCHEDULERS`, or the class of the pipeline's own scheduler.
        num_inference_steps: The argument of the pipeline call.
        guidance_scale: Guidance scale of the pipeline call.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        shared_hash: Version of the shared state, "" if there is none.
        fingerprint: Fingerprint of the requested plan.
        settings: Digests of the settings of the other machine's model as JSON, "" if they are not known.

    Raises:
        UserError: If a number is outside of `fedaigc.bounds`, or if a hash is not a SHA-256 in hex.
    """

    scheduler_class: str
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    shared_hash: str
    fingerprint: str
    settings: str = ""

    def __post_init__(self) -> None:
        if type(self.scheduler_class) is not str:
            raise UserError(f"the plan names the scheduler {self.scheduler_class!r:.60}: expected a name")
        _check_count("num_inference_steps", self.num_inference_steps, MAX_DENOISING_STEPS)
        _check_count("height", self.height, MAX_IMAGE_SIDE)
        _check_count("width", self.width, MAX_IMAGE_SIDE)
        if self.height * self.width > MAX_IMAGE_PIXELS:
            raise UserError(
                f"{self.height} x {self.width} pixels: expected at most {MAX_IMAGE_PIXELS} in all"
            )
        if type(self.guidance_scale) is not float or not 0 <= self.guidance_scale <= MAX_GUIDANCE_SCALE:
            raise UserError(
                f"guidance_scale is {self.guidance_scale!r:.40}: expected 0 to {MAX_GUIDANCE_SCALE:g}"
            )
        for name, value in (("shared_hash", self.shared_hash), ("fingerprint", self.fingerprint)):
            none = name == "shared_hash" and value == ""
            if not none and (type(value) is not str or not _SHA256.fullmatch(value)):
                raise UserError(f"{name} is {value!r:.80}: expected a SHA-256 in hex")
        _digests(self.settings)

    @classmethod
    def of(cls, plan: DenoisingPlan) -> "PlanRequest":
        """Return the request for a plan.

        Raises:
            UserError: If the plan has a negative prompt or further arguments, which devices do not accept.
        """
        if plan.arguments:
            raise UserError(
                f"a plan for devices cannot have further arguments of the pipeline call: {plan.arguments:.120}"
            )
        if plan.negative_prompt:
            raise UserError(
                "a plan for devices cannot have a negative prompt, which would be text of another machine"
            )
        return cls(
            plan.scheduler_class,
            plan.num_inference_steps,
            plan.guidance_scale,
            plan.height,
            plan.width,
            plan.shared_hash,
            plan.fingerprint(),
            plan.settings,
        )

    def values(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Any) -> "PlanRequest":
        """Build a request from the output of `values`.

        Raises:
            UserError: If the names are not exactly those of the fields, or if a value is invalid.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() != names:
            raise UserError(f"invalid request of a plan: expected the keys {', '.join(sorted(names))}")
        return cls(**values)

    def build(self, pipe: Pipeline, base_hash: str) -> DenoisingPlan:
        """Build the plan from this machine's own pipeline and base model.

        Raises:
            UserError: If the scheduler is not accepted, if the pipeline refuses the settings, if a part of the
                model has other settings than on the other machine, or if the plan's fingerprint differs from the
                requested one. In the last case the other machine has another scheduler configuration, dtype or
                base model.
        """
        scheduler, own = pipe.scheduler, type(pipe.scheduler).__name__
        if self.scheduler_class not in SCHEDULERS | {own}:
            raise UserError(
                f"the plan names the scheduler {self.scheduler_class!r:.60}: devices accept "
                f"{', '.join(sorted(SCHEDULERS | {own}))}"
            )
        if own != self.scheduler_class:
            scheduler = named_scheduler(self.scheduler_class).from_config(scheduler.config)
        with borrowed(pipe, scheduler):
            plan = build_plan(
                pipe,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                height=self.height,
                width=self.width,
                base_hash=base_hash,
                shared_hash=self.shared_hash,
            )
        there = _digests(self.settings)
        other = differences(_digests(plan.settings), there) if there else []
        if other:
            raise UserError(
                f"the model has other settings here than on the machine of the plan: {', '.join(other)}; load the "
                "same files with the same options on both"
            )
        if plan.fingerprint() != self.fingerprint:
            raise UserError(
                f"the plan built here is {plan.fingerprint()}, the requested one {self.fingerprint}: scheduler "
                "configuration, dtype or base model differ"
            )
        return plan


def _digests(text: str) -> dict[str, str]:
    """Return the digests of settings by name.

    Raises:
        UserError: If the text is not a JSON object of digests.
    """
    if text == "":
        return {}
    try:
        values = read_json(text, max_characters=_MAX_SETTINGS) if type(text) is str else None
    except ValueError:
        values = None
    if not isinstance(values, dict) or not all(
        _PART.fullmatch(name) and type(value) is str and _DIGEST.fullmatch(value)
        for name, value in values.items()
    ):
        raise UserError(f"the settings of the plan are {text!r:.80}: expected digests by name")
    return values


def _check_count(name: str, value: int, limit: int) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise UserError(f"{name} is {value!r:.40}: expected 1 to {limit}")
