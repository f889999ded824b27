"""Resume received latents at their actual noise level, treating channel errors as noise.

Latents x = a x_0 + s e are sent and arrive as y = g x + d, where d has mean 0 and variance v and is
uncorrelated with x. Then

    y / g = a x_0 + sqrt(s^2 + v / g^2) e'      log-SNR  ln(a^2 / (s^2 + v / g^2)),

which would be a noisier point of the same process if d were Gaussian. Multiplying by

    c = 1 / sqrt(a^2 + s^2 + v / g^2)

returns it to the variance-preserving scale. Its noise level lies between steps of the plan. The run continues
from there to the next plan step that is less noisy, by first-order steps of the probability flow. These are
the steps of DDIM and, on its own scale, of Euler. docs/notes/noise_matched_resume.md contains the derivation.

Range: 8-bit fixed point with 4 to 10 % of flipped bits. Flips at rate p have a kurtosis of about 0.6 / p, a
Gaussian has 3. At a rate of 1 % the errors are rare and large (kurtosis 60). At 2 % or less, resuming at the
matched level was not seen to bring images closer to those without errors than continuing at K does
(docs/figures/figure3.md).
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
from fedaigc.diffusion.sampling.finite import check_finite, finite_pictures
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed, call_arguments, execution_device
from fedaigc.diffusion.sampling.segment import DenoisingState
from fedaigc.diffusion.schedule.noise_level import signal_and_noise, train_log_snr
from fedaigc.diffusion.schedule.plan import DenoisingPlan, latents_std, log_snr
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.errors import UserError
from fedaigc.wireless.number_format import FormatName

_SCHEDULERS = ("DDIMScheduler", "EulerDiscreteScheduler")


@dataclass(frozen=True)
class BitErrors:
    """A receiver's knowledge of the errors in received fixed-point latents.

    Attributes:
        number_format: The fixed-point format of the latents.
        rate: Fraction of flipped bits.
    """

    number_format: FormatName
    rate: float


def expected_error(plan: DenoisingPlan, step: int, errors: BitErrors) -> tuple[float, float]:
    """Return gain and error variance of latents sent at `step` (see `NumberFormat.linear_error`)."""
    number_format = number_format_at(errors.number_format, plan, step)
    return number_format.linear_error(latents_std(plan, step), np.full(number_format.width, errors.rate))


def check_matched(plan: DenoisingPlan) -> None:
    """Check that a plan can be resumed between its steps.

    Raises:
        UserError: If the plan's scheduler is neither DDIM nor Euler, or if its timesteps are given.
    """
    if plan.scheduler_class not in _SCHEDULERS:
        raise UserError(
            f"noise-matched resume: {plan.scheduler_class} cannot resume between its steps: expected one of "
            f"{', '.join(_SCHEDULERS)}"
        )
    given = sorted(plan.call.keys() & {"timesteps", "sigmas"})
    if given:
        raise UserError(
            f"noise-matched resume: the plan has {given[0]} of its own, and no steps between them"
        )


def matched_log_snr(plan: DenoisingPlan, step: int, gain: float, error_variance: float) -> float:
    """Return the log-SNR of received latents, in the scale of the plan's scheduler.

    Args:
        plan: The plan of the latents.
        step: The step at which the latents were sent.
        gain: The gain g.
        error_variance: The variance v of the error d.

    Raises:
        UserError: If `gain` is not above 0, since nothing of the sent latents is left then and the task
            should run alone. Also if `error_variance` is negative or not finite.
    """
    if not (gain > 0 and error_variance >= 0 and math.isfinite(error_variance)):
        raise UserError(
            f"gain {gain}, error variance {error_variance}: expected a gain above 0 and a variance of at least 0"
        )
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
) -> tuple[list[Image], int]:
    """Resume received latents at their own noise level.

    Do not use this for errors that are few and large: they are not Gaussian, and resuming at the matched
    level has no benefit. This includes flipped bits of fixed point at a rate of 2 % or less.

    Args:
        pipe: The pipeline to run.
        state: The received state. `state.history` is not used.
        conditioning: Keyword arguments of the pipeline call, as in `run_segment`.
        plan: The plan that the state belongs to, with N steps.
        gain: The gain g (see `expected_error`).
        error_variance: The variance v of the error d.

    Returns:
        The images, and the number of denoiser steps taken. For a state sent at step K this is N - K without
        errors and N - K + 1 if the matched level lies between steps K - 1 and K. Larger errors repeat more of
        the earlier steps, up to N steps in total.

    Raises:
        UserError: If the scheduler is neither DDIM nor Euler, if the latents are not finite (`repair` them
            first), if the state is at the last step, or as `matched_log_snr` raises it.
    """
    check_matched(plan)
    if not bool(torch.isfinite(state.latents).all()):
        raise UserError("the received latents are not finite: repair them first, by clipping for instance")
    levels = log_snr(plan)
    if state.step >= plan.num_steps:
        raise UserError("the state is at the last step: no steps are left to denoise")
    matched = min(max(matched_log_snr(plan, state.step, gain, error_variance), levels[0]), levels[state.step])
    signal, noise = signal_and_noise(_scheduler(plan), levels[state.step])
    scaled = state.latents / gain / math.sqrt(signal**2 + noise**2 + error_variance / gain**2)
    left = [level for level in levels if level > matched and not math.isclose(level, matched)]
    path = [matched, *left]
    limit = math.inf if plan.boundary >= plan.num_steps else levels[plan.boundary]
    shared, personal = [x for x in path if x < limit], [x for x in path if x >= limit]
    output: Any = scaled
    for stage, part, following in (
        (Stage.SHARED, shared, personal[:1]),
        (Stage.PERSONAL, personal, []),
    ):
        if not part:
            continue
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
    arguments = call_arguments(pipe, conditioning, **(plan.call | {"num_inference_steps": len(levels)}))
    device = execution_device(pipe)
    with torch.no_grad(), borrowed(pipe, scheduler), finite_pictures(pipe):
        output = pipe(
            **arguments,
            latents=latents.to(device),
            generator=torch.Generator().manual_seed(0),
            output_type=output_type,
            return_dict=False,
        )
    check_finite(pipe, output[0], "latents")
    return output[0]


def _scheduler(plan: DenoisingPlan) -> Any:
    return named_scheduler(plan.scheduler_class).from_config(json.loads(plan.scheduler_config))


def _preserving(log_snr_level: float) -> tuple[float, float]:
    """Return alpha and sigma on the variance-preserving scale: their squares are logistic in the log-SNR."""
    return math.sqrt(expit(log_snr_level)), math.sqrt(expit(-log_snr_level))


def _off_grid(plan: DenoisingPlan, levels: list[float], following: list[float]) -> Any:
    """Return a scheduler of first-order steps through `levels`, then to `following` or the clean end."""
    stock: Any = named_scheduler("DDIMScheduler")

    class OffGrid(stock):
        """Deterministic DDIM between any two noise levels, in the variance-preserving scale."""

        def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
            """Set the given levels as training timesteps, which may be fractional."""
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
            """Predict clean latents and noise, and combine them at the next level."""
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
