"""The plan on which two machines must agree before one continues the denoising of the other [Du23].

A plan contains no split: the hand-off step K belongs to a state. It contains no personal adapter either,
because a personal adapter never leaves its device.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, ValidationError, with_config

from fedaigc.diffusion.sampling.observed_call import note_preparation
from fedaigc.diffusion.sampling.pipeline_call import (
    FIXED,
    Pipeline,
    call_arguments,
    check_negative,
    dtype_name,
)
from fedaigc.diffusion.schedule.model_settings import model_settings, to_text
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr, noise_levels, signal_and_noise
from fedaigc.diffusion.schedule.stock_schedule import canonical_config, named_scheduler, observed_schedule
from fedaigc.errors import UserError
from fedaigc.validation import first_mistake, typed_json

__all__ = ["DenoisingPlan", "boundary_log_snr", "boundary_step", "build_plan", "latents_std", "log_snr"]


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True)
class DenoisingPlan:
    """One complete denoising run of `num_steps` denoiser evaluations.

    Attributes:
        scheduler_class: Name of a diffusers scheduler class.
        scheduler_config: Its arguments as canonical JSON.
        timesteps: One timestep per denoiser evaluation. They are floats and may repeat (PNDM, Heun).
        sigmas: The scheduler's noise levels, one or two more than timesteps. None if it keeps none.
        guidance_scale: Guidance scale of the pipeline call.
        negative_prompt: Negative prompt of the pipeline call. An empty one means none.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        dtype: The denoiser's dtype, e.g. "float32".
        base_hash: Version of the base model.
        shared_hash: Version of the shared state, "" if there is none.
        num_inference_steps: The argument of the pipeline call. `num_steps` may be larger.
        arguments: Further arguments of the pipeline call as canonical JSON, e.g. {"true_cfg_scale":4.0}. Empty
            if there are none, and then no part of the JSON of the plan.
        boundary_log_snr: The stage boundary t* as a log-SNR, None if there is none. It belongs to the shared
            state, which `shared_hash` names, so it is not part of the JSON, the fingerprint or a comparison.

    Raises:
        UserError: If the plan has no steps, fewer sigmas than timesteps, a scheduler config that is not a
            JSON object, or an empty image.
    """

    scheduler_class: str
    scheduler_config: str
    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...] | None
    guidance_scale: float
    negative_prompt: str
    height: int
    width: int
    dtype: str
    base_hash: str
    shared_hash: str
    num_inference_steps: int
    arguments: str = ""
    boundary_log_snr: float | None = field(default=None, compare=False)
    settings: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.timesteps or self.num_inference_steps < 1:
            raise UserError(f"a plan needs at least one step, got {len(self.timesteps)}")
        if self.sigmas is not None and len(self.sigmas) < len(self.timesteps):
            raise UserError(
                f"{len(self.timesteps)} timesteps and {len(self.sigmas)} sigmas: expected at least as many sigmas"
            )
        try:
            config = json.loads(self.scheduler_config)
        except (ValueError, RecursionError):
            config = None
        if not isinstance(config, dict):
            raise UserError(f"the scheduler config {self.scheduler_config!r:.80} is not a JSON object")
        if self.arguments and canonical_arguments(_object(self.arguments)) != self.arguments:
            raise UserError(f"the arguments {self.arguments!r:.80} are not canonical JSON")
        if self.height < 1 or self.width < 1:
            raise UserError(f"image size {self.height} x {self.width}: expected at least one pixel each way")

    @property
    def call(self) -> dict[str, Any]:
        """The arguments of the pipeline call that the plan fixes, besides the conditioning."""
        return {
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "negative_prompt": self.negative_prompt,
            "height": self.height,
            "width": self.width,
            **self.further,
        }

    @property
    def further(self) -> dict[str, Any]:
        """The further arguments of the pipeline call."""
        return _object(self.arguments) if self.arguments else {}

    @property
    def num_steps(self) -> int:
        """N, the number of denoiser evaluations. Guidance doubles the samples, not the evaluations."""
        return len(self.timesteps)

    @cached_property
    def boundary(self) -> int:
        """The first step on the personal side of t*: see `boundary_step`."""
        return boundary_step(self, self.boundary_log_snr)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces, exact floats."""
        values = {each.name: getattr(self, each.name) for each in _agreed()}
        if not self.arguments:  # plans without them keep the fingerprint that they had before there were any
            del values["arguments"]
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex: the version of the plan that packets carry."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> "DenoisingPlan":
        """Parse the output of `to_json`.

        Raises:
            UserError: If the text does not contain exactly the keys and types of a plan.
        """
        try:
            plan = typed_json(cls, text)
        except ValidationError as error:
            raise UserError(f"invalid plan: {first_mistake(error)}") from error
        if plan.boundary_log_snr is not None:
            raise UserError("invalid plan: boundary_log_snr is no key of it, but of the shared state")
        if plan.settings:
            raise UserError("invalid plan: settings is no key of it, but of each machine's model")
        return plan


def _agreed() -> list[Field[Any]]:
    """Return the fields on which both machines must agree."""
    return [each for each in fields(DenoisingPlan) if each.compare]


def canonical_arguments(arguments: Mapping[str, Any] | None) -> str:
    """Return further arguments of a pipeline call as canonical JSON, "" for none.

    Raises:
        UserError: If the plan has a field for an argument, or if a value is not a number, a string, None or a
            list of these.
    """
    if not arguments:
        return ""
    fixed = sorted(arguments.keys() & (FIXED - {"timesteps", "sigmas"}))
    if fixed:
        raise UserError(f"arguments have {', '.join(fixed)}, which the plan has of its own")
    plain = bool | int | float | str | None
    for name, value in arguments.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(part, plain) for part in parts):
            raise UserError(
                f"argument {name} is a {type(value).__name__}: a plan has numbers, strings and lists of them; give "
                "images and embeddings with the prompt"
            )
    try:
        return json.dumps(dict(arguments), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise UserError(f"the arguments of a plan must be finite: {error}") from error


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"the arguments {text!r:.80} are not a JSON object")
    return value


def build_plan(
    pipe: Pipeline,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    height: int,
    width: int,
    negative_prompt: str = "",
    base_hash: str,
    shared_hash: str = "",
    boundary_log_snr: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    conditioning: Mapping[str, Any] | None = None,
) -> DenoisingPlan:
    """Return the plan of a pipeline call with these settings.

    The plan is that of `pipe(prompt, num_inference_steps=..., guidance_scale=..., height=..., width=...)`.
    The timesteps come from the pipeline itself (SD3 and FLUX shift them by the image size), in a call on the
    empty prompt that computes no step. Its only cost is one encoding of the empty prompt.

    Args:
        pipe: The pipeline.
        num_inference_steps: The argument of the pipeline call.
        guidance_scale: Guidance scale of the pipeline call.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        negative_prompt: Negative prompt of the pipeline call. An empty one means none.
        base_hash: Version of the base model (`base_fingerprint`).
        shared_hash: Version of the shared state, "" if there is none.
        boundary_log_snr: The stage boundary t* of the shared state, None if there is none.
        arguments: Further arguments of the pipeline call that all machines share: `timesteps` or `sigmas` of a
            distilled schedule, `true_cfg_scale`, `num_frames`, ...
        conditioning: The arguments that stand for the prompt in this call, for a pipeline that needs more than
            a prompt (an image, a mask, embeddings). They are no part of the plan. None: the empty prompt.

    Raises:
        UserError: If `num_inference_steps` is below 1, if `guidance_scale` is not finite, if the steps start
            above the last training timestep, if the pipeline refuses the call, if a negative prompt would have no
            effect, or if its config does not describe its scheduler.
    """
    if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
        raise UserError(
            f"num_inference_steps is {num_inference_steps!r}: expected a whole number of at least 1"
        )
    if not math.isfinite(guidance_scale):
        raise UserError(f"guidance_scale is {guidance_scale}: expected a finite number")
    further = canonical_arguments(arguments)
    call = call_arguments(
        pipe,
        {"prompt": ""} if conditioning is None else conditioning,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        negative_prompt=negative_prompt,
        height=height,
        width=width,
        **(_object(further) if further else {}),
    )
    (timesteps, sigmas), observed = observed_schedule(pipe, call)
    check_negative(pipe, call, negative_prompt)
    note_preparation(pipe, observed)
    trained = len(getattr(pipe.scheduler, "alphas_cumprod", ()))
    # with an offset of one, a run of all timesteps starts at T. Sigmas are not looked up by timestep
    if sigmas is None and trained and max(timesteps) >= trained:
        raise UserError(
            f"num_inference_steps is {num_inference_steps}: {type(pipe.scheduler).__name__} then starts at "
            f"timestep {max(timesteps):.0f}, and the model was trained on 0 to {trained - 1}: use fewer steps"
        )
    return DenoisingPlan(
        scheduler_class=type(pipe.scheduler).__name__,
        scheduler_config=canonical_config(pipe.scheduler),
        timesteps=timesteps,
        sigmas=sigmas,
        guidance_scale=float(guidance_scale),
        negative_prompt=negative_prompt,
        height=height,
        width=width,
        dtype=dtype_name(pipe),
        base_hash=base_hash,
        shared_hash=shared_hash,
        num_inference_steps=num_inference_steps,
        arguments=further,
        boundary_log_snr=boundary_log_snr,
        settings=to_text(model_settings(pipe)),
    )


def log_snr(plan: DenoisingPlan) -> tuple[float, ...]:
    """Return ln(alpha^2 / sigma^2) at each step of the plan, ascending. Pure noise has -inf."""
    scheduler = named_scheduler(plan.scheduler_class).from_config(json.loads(plan.scheduler_config))
    return noise_levels(scheduler, plan.timesteps, plan.sigmas)


def latents_std(plan: DenoisingPlan, step: int, clean_std: float = 1.0) -> float:
    """Return the standard deviation of a latent value before step `step`, in the scheduler's own scale.

        sqrt(alpha^2 s^2 + sigma^2)    for x = alpha x_0 + sigma e and s = clean_std

    alpha and sigma follow from the log-SNR as in `signal_and_noise`: their squares add up to 1, they add up
    to 1 (flow matching), or alpha = 1 (the variance-exploding scale of Euler and related schedulers).

    Args:
        plan: The plan.
        step: The step. After the last step, the result is `clean_std`.
        clean_std: Standard deviation of clean latents. Diffusion models scale their latents to about 1.
    """
    if step >= plan.num_steps:
        return clean_std
    scheduler = named_scheduler(plan.scheduler_class).from_config(json.loads(plan.scheduler_config))
    alpha, sigma = signal_and_noise(scheduler, log_snr(plan)[step])
    return math.hypot(alpha * clean_std, sigma)


def boundary_step(plan: DenoisingPlan, t_star_log_snr: float | None) -> int:
    """Return the first step on the personal (clean) side of t*, with a log-SNR at or above it.

    The result is `num_steps` if every step is noisier than t*, or if there is no boundary (None).
    """
    if t_star_log_snr is None:
        return plan.num_steps
    levels = log_snr(plan)
    return next((step for step, level in enumerate(levels) if level >= t_star_log_snr), plan.num_steps)


def even_steps(start: int, stop: int, count: int) -> tuple[int, ...]:
    """Return at most `count` evenly spaced steps in [start, stop), beginning with `start`."""
    count = min(count, stop - start)
    return tuple(start + (stop - start) * i // count for i in range(count))
