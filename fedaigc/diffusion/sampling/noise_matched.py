"""Resume received latents at the noise level that they have: errors of the channel are noise like any other.

Sent x = a x_0 + s e arrives as y = g x + d, d of mean 0 and variance v, uncorrelated with x. Then

    y / g = a x_0 + sqrt(s^2 + v / g^2) e'      log-SNR  ln(a^2 / (s^2 + v / g^2)),

a noisier point of the same process, were d Gaussian; c = 1 / sqrt(a^2 + s^2 + v / g^2) puts it back on the
variance-preserving scale. That level lies between the steps of the plan: the run goes on from there to the
next step of the plan that is less noisy, by first-order steps of the probability flow, which are DDIM's and,
on its own scale, Euler's. The derivation is in docs/notes/noise_matched_resume.md.

Range: 8-bit fixed point with 4 to 10 % of flipped bits. Flips at rate p have a kurtosis of about 0.6 / p, a
Gaussian has 3: at 1 % the errors are rare and large (60). At 2 % or less resuming so was not seen to bring
pictures closer to those without errors than going on at K does (docs/figures/figure3.md).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from scipy.special import expit
from torch import Tensor

from fedaigc.diffusion.adapters.stages import Stage, activate
from fedaigc.diffusion.handoff.packing import number_format_at
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed, call_arguments
from fedaigc.diffusion.sampling.segment import DenoisingState
from fedaigc.diffusion.schedule.noise_level import signal_and_noise, train_log_snr
from fedaigc.diffusion.schedule.plan import DenoisingPlan, latents_std, log_snr
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.errors import UserError
from fedaigc.wireless.number_format import FormatName

_SCHEDULERS = ("DDIMScheduler", "EulerDiscreteScheduler")


@dataclass(frozen=True)
class BitErrors:
    """What a receiver knows of the errors in latents of this fixed-point format: the rate of flipped bits."""

    number_format: FormatName
    rate: float


def expected_error(plan: DenoisingPlan, step: int, errors: BitErrors) -> tuple[float, float]:
    """Gain and error variance of latents sent at `step`: see `NumberFormat.linear_error`."""
    number_format = number_format_at(errors.number_format, plan, step)
    return number_format.linear_error(latents_std(plan, step), np.full(number_format.width, errors.rate))


def check_matched(plan: DenoisingPlan) -> None:
    """Raises UserError for a plan that cannot be resumed off its steps."""
    if plan.scheduler_class not in _SCHEDULERS:
        raise UserError(
            f"noise-matched resume: {plan.scheduler_class} cannot resume off its steps: expected one of "
            f"{', '.join(_SCHEDULERS)}"
        )


def matched_log_snr(plan: DenoisingPlan, step: int, gain: float, error_variance: float) -> float:
    """The log-SNR of latents sent at `step` that arrive with this gain and error variance.

    In the scale of the plan's scheduler. Raises UserError for a gain that is not above 0: nothing of what was
    sent is left then, so run alone.
    """
    if not (gain > 0 and error_variance >= 0 and math.isfinite(error_variance)):
        raise UserError(f"gain {gain}, error variance {error_variance}: expected above 0, and 0 or more")
    signal, noise = signal_and_noise(_scheduler(plan), log_snr(plan)[step])
    return math.log(signal**2 / (noise**2 + error_variance / gain**2))


def resume_noise_matched(
    pipe: Pipeline,
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    *,
    gain: float,
    error_variance: float,
    boundary: int | None = None,
) -> tuple[list[Image], int]:
    """The images of received latents, resumed at their own noise level, and the denoiser steps it took.

    N - K steps while the level lies within the step before K's; more for larger errors, at most N + 1, for
    the earlier steps are then run again here. `state.history` is not used. boundary: first step on the
    personal side of t*; None when no stage has adapters.

    Raises UserError for schedulers other than DDIM and Euler, for latents that are not finite (`repair` them
    first), and as `matched_log_snr` does. Not for errors that are few and large, which includes flips of
    fixed point at 2 % or less: those are no Gaussian, and nothing is gained.
    """
    check_matched(plan)
    if not bool(torch.isfinite(state.latents).all()):
        raise UserError("the received latents are not finite: repair them first, by clipping for instance")
    levels = log_snr(plan)
    if state.step >= plan.num_steps:
        raise UserError("nothing is left to denoise at the last step")
    matched = min(max(matched_log_snr(plan, state.step, gain, error_variance), levels[0]), levels[state.step])
    signal, noise = signal_and_noise(_scheduler(plan), levels[state.step])
    scaled = state.latents / gain / math.sqrt(signal**2 + noise**2 + error_variance / gain**2)
    left = [level for level in levels if level > matched and not math.isclose(level, matched)]
    path = [matched, *left]
    limit = math.inf if boundary is None or boundary >= plan.num_steps else levels[boundary]
    shared, personal = [x for x in path if x < limit], [x for x in path if x >= limit]
    output: Any = scaled
    for stage, part, following in (
        (Stage.SHARED, shared, personal[:1]),
        (Stage.PERSONAL, personal, []),
    ):
        if not part:
            continue
        if boundary is not None:
            activate(pipe, stage)
        last = not following
        output = _run(pipe, output, conditioning, plan, part, following, "pil" if last else "latent")
    return list(output), len(path)


def _run(
    pipe: Pipeline,
    latents: Float[Tensor, "b *latent"],
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    levels: list[float],
    following: list[float],
    output_type: str,
) -> Any:
    scheduler = _off_grid(plan, levels, following)
    arguments = call_arguments(
        pipe,
        conditioning,
        num_inference_steps=len(levels),
        guidance_scale=plan.guidance_scale,
        negative_prompt=plan.negative_prompt,
        height=plan.height,
        width=plan.width,
    )
    device = pipe._execution_device
    with torch.no_grad(), borrowed(pipe, scheduler):
        output = pipe(
            **arguments,
            latents=latents.to(device),
            generator=torch.Generator().manual_seed(0),
            output_type=output_type,
            return_dict=False,
        )
    return output[0]


def _scheduler(plan: DenoisingPlan) -> Any:
    return named_scheduler(plan.scheduler_class).from_config(json.loads(plan.scheduler_config))


def _preserving(log_snr_level: float) -> tuple[float, float]:
    """alpha and sigma on the variance-preserving scale: their squares are logistic in the log-SNR."""
    return math.sqrt(expit(log_snr_level)), math.sqrt(expit(-log_snr_level))


def _off_grid(plan: DenoisingPlan, levels: list[float], following: list[float]) -> Any:
    """A scheduler of first-order steps through these log-SNRs, then to `following` or to the clean end."""
    stock: Any = named_scheduler("DDIMScheduler")

    class OffGrid(stock):
        """Deterministic DDIM between any two noise levels, in the variance-preserving scale."""

        def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
            """The given levels, as positions among the timesteps of training; they may lie between two."""
            table = train_log_snr(self).numpy()
            positions = np.interp(-np.array(levels), -table, np.arange(len(table)))
            self.num_inference_steps = num_inference_steps
            self.timesteps = torch.from_numpy(positions).float().to(device)
            pairs = [_preserving(level) for level in (*levels, *following)]
            if not following:
                end = float(self.final_alpha_cumprod) if plan.scheduler_class == "DDIMScheduler" else 1.0
                pairs.append((math.sqrt(end), math.sqrt(1 - end)))
            self._pairs, self._done = pairs, 0

        def step(
            self,
            model_output: Tensor,
            timestep: Any,
            sample: Tensor,
            eta: float = 0.0,
            generator: Any = None,
            return_dict: bool = True,
        ) -> tuple[Tensor]:
            """One step: the clean latents that the denoiser means, noised to the next level."""
            (a, s), (next_a, next_s) = self._pairs[self._done : self._done + 2]
            self._done += 1
            kind = self.config.prediction_type
            if kind == "v_prediction":
                clean, noise = a * sample - s * model_output, a * model_output + s * sample
            elif kind == "epsilon":
                clean, noise = (sample - s * model_output) / a, model_output
            else:
                clean, noise = model_output, (sample - a * model_output) / s
            return (next_a * clean + next_s * noise,)

    return OffGrid.from_config(json.loads(plan.scheduler_config))
