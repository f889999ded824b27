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
    MAX_PROMPT_CHARACTERS,
)
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed
from fedaigc.diffusion.schedule.model_settings import differences, read_settings
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.errors import UserError

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
_OPTIONAL = frozenset({"negative_prompt", "true_cfg_scale"})
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
        negative_prompt: Negative prompt of the pipeline call, "" if there is none.
        true_cfg_scale: The argument of the pipeline call, None if it is not given.

    Raises:
        UserError: If a number or a text is outside of `fedaigc.bounds`, or if a hash is not a SHA-256 in hex.
    """

    scheduler_class: str
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    shared_hash: str
    fingerprint: str
    settings: str = ""
    negative_prompt: str = ""
    true_cfg_scale: float | None = None

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
        _check_scale("guidance_scale", self.guidance_scale)
        if self.true_cfg_scale is not None:
            _check_scale("true_cfg_scale", self.true_cfg_scale)
        if type(self.negative_prompt) is not str or len(self.negative_prompt) > MAX_PROMPT_CHARACTERS:
            raise UserError(f"negative_prompt: expected a text of at most {MAX_PROMPT_CHARACTERS} characters")
        for name, value in (("shared_hash", self.shared_hash), ("fingerprint", self.fingerprint)):
            none = name == "shared_hash" and value == ""
            if not none and (type(value) is not str or not _SHA256.fullmatch(value)):
                raise UserError(f"{name} is {value!r:.80}: expected a SHA-256 in hex")
        read_settings(self.settings)

    @classmethod
    def of(cls, plan: DenoisingPlan) -> "PlanRequest":
        """Return the request for a plan.

        Raises:
            UserError: If the plan has further arguments that devices do not accept.
        """
        further = plan.further
        if further.keys() - {"true_cfg_scale"}:
            raise UserError(
                f"a plan for devices can have true_cfg_scale, and no other arguments of the pipeline call: "
                f"{plan.arguments:.120}"
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
            plan.negative_prompt,
            float(further["true_cfg_scale"]) if further else None,
        )

    def values(self) -> dict[str, Any]:
        """Return the fields by name, without the optional ones that have their default."""
        optional = _optional()
        return {k: v for k, v in asdict(self).items() if k not in optional or v != optional[k]}

    @classmethod
    def from_values(cls, values: Any) -> "PlanRequest":
        """Build a request from the output of `values`.

        Raises:
            UserError: If the names are not those of the fields, of which the optional ones may be missing, or if a
                value is invalid.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not names - _optional().keys() <= values.keys() <= names:
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
                negative_prompt=self.negative_prompt,
                base_hash=base_hash,
                shared_hash=self.shared_hash,
                arguments={} if self.true_cfg_scale is None else {"true_cfg_scale": self.true_cfg_scale},
            )
        there = read_settings(self.settings)
        other = differences(read_settings(plan.settings), there) if there else []
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


def _optional() -> dict[str, Any]:
    """Return the fields that a message has only where they are given, with their defaults."""
    return {each.name: each.default for each in fields(PlanRequest) if each.name in _OPTIONAL}


def _check_scale(name: str, value: float) -> None:
    if type(value) is not float or not 0 <= value <= MAX_GUIDANCE_SCALE:
        raise UserError(f"{name} is {value!r:.40}: expected 0 to {MAX_GUIDANCE_SCALE:g}")


def _check_count(name: str, value: int, limit: int) -> None:
    if type(value) is not int or not 1 <= value <= limit:
        raise UserError(f"{name} is {value!r:.40}: expected 1 to {limit}")
