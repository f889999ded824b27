"""The noise level of a timestep as a log-SNR, the only scale on which the stage boundary t* is given.

    variance preserving    x_t = alpha x_0 + sigma e    log-SNR  ln(alpha^2 / sigma^2)
    flow matching          x_s = (1 - s) x_0 + s e      log-SNR  ln((1 - s)^2 / s^2)
    EDM                    x_s = x_0 + s e              log-SNR  -2 ln s

Variance-preserving schedules have alpha^2 + sigma^2 = 1. EDM models (Playground v2.5) are conditioned on a function
of s, and their training timesteps 0 to T - 1 are the noise levels of their scheduler, ascending.

References:
    Karras et al. 2022 (EDM).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.errors import UserError


def boundary_log_snr(pipe_or_scheduler: Any, train_timestep: float) -> float:
    """Return the log-SNR at a training timestep, e.g. to specify t* as timestep 500 of 1000.

    Between two timesteps the log-SNR is interpolated linearly.

    Args:
        pipe_or_scheduler: A pipeline or its scheduler, with T = num_train_timesteps.
        train_timestep: A timestep from 0 to T - 1. For flow matching it is T s, from 0 (no noise: +inf) to T
            (only noise: -inf).

    Raises:
        UserError: If the timestep is out of range, or if the scheduler has continuous timesteps (see
            `noise_levels`).
    """
    scheduler = getattr(pipe_or_scheduler, "scheduler", pipe_or_scheduler)
    last = int(scheduler.config.num_train_timesteps) - (0 if is_flow(scheduler) else 1)
    if not 0 <= train_timestep <= last:
        raise UserError(f"timestep {train_timestep} is outside of training: expected 0 to {last}")
    return noise_levels(scheduler, [train_timestep], None)[0]


def noise_levels(
    scheduler: Any, timesteps: Sequence[float], sigmas: Sequence[float] | None
) -> tuple[float, ...]:
    """Return the log-SNR that the denoiser is conditioned on at each of `timesteps`.

    Args:
        scheduler: The scheduler that the timesteps belong to.
        timesteps: The timesteps.
        sigmas: Noise levels in the variance-exploding scale of the scheduler, sigma / alpha. They are used
            only if timesteps are not positions in the training schedule (continuous timesteps, EDM). None for EDM:
            `timesteps` are training timesteps.

    Raises:
        UserError: If the scheduler has continuous timesteps and `sigmas` is None, or if the scale of its noise
            levels is not known here.
    """
    config = scheduler.config
    if is_flow(scheduler):
        return tuple(_flow_log_snr(timestep / config.num_train_timesteps) for timestep in timesteps)
    if is_edm(scheduler):
        if sigmas is None:
            table = -2 * edm_sigmas(scheduler).log()
            return tuple(_interpolated(table, timestep) for timestep in timesteps)
        return tuple(-2 * math.log(sigma) for sigma, _ in zip(sigmas, timesteps, strict=False))
    if config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction":
        if sigmas is None:
            raise UserError(f"{type(scheduler).__name__} has continuous timesteps: give the log-SNR instead")
        return tuple(-2 * math.log(sigma) for sigma, _ in zip(sigmas, timesteps, strict=False))
    table = train_log_snr(scheduler)
    return tuple(_interpolated(table, timestep) for timestep in timesteps)


def signal_and_noise(scheduler: Any, log_snr: float) -> tuple[float, float]:
    """Return alpha and sigma of x = alpha x_0 + sigma e at a log-SNR, in the scheduler's scale.

        variance preserving    alpha^2 + sigma^2 = 1
        flow matching          alpha + sigma = 1
        variance exploding     alpha = 1

    The last applies if the scheduler itself scales the input of the denoiser. At a log-SNR of -inf (pure
    noise), alpha is 0 and sigma is 1 in the first two scales.
    """
    ratio = math.exp(-log_snr / 2) if log_snr > -1000 else math.inf
    if is_flow(scheduler):
        return (0.0, 1.0) if math.isinf(ratio) else (1 / (1 + ratio), ratio / (1 + ratio))
    if _is_exploding(scheduler):
        return 1.0, ratio
    return (0.0, 1.0) if math.isinf(ratio) else (1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))


def _is_exploding(scheduler: Any) -> bool:
    """Return whether latents are x_0 + (sigma / alpha) e, and the scheduler scales the denoiser's input."""
    fresh = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(8)
    return bool((fresh.scale_model_input(torch.ones(1), fresh.timesteps[0]) != 1).any())


def is_flow(scheduler: Any) -> bool:
    """Return whether the scheduler follows flow matching: it shifts its sigmas, or uses flow sigmas."""
    if hasattr(scheduler, "alphas_cumprod"):
        return bool(scheduler.config.get("use_flow_sigmas"))
    return hasattr(scheduler, "scale_noise") or "shift" in scheduler.config or _times_are_sigmas(scheduler)


def _times_are_sigmas(scheduler: Any) -> bool:
    """Return whether each timestep is T times the sigma of its step, which then lies between 0 and 1."""
    fresh = type(scheduler).from_config(scheduler.config)
    try:
        fresh.set_timesteps(4)
        times, sigmas = fresh.timesteps.double(), fresh.sigmas[: len(fresh.timesteps)].double()
    except (AttributeError, TypeError, ValueError):
        return False
    return bool(sigmas.max() <= 1) and torch.allclose(times, sigmas * scheduler.config.num_train_timesteps)


def is_edm(scheduler: Any) -> bool:
    """Return whether the scheduler belongs to an EDM model, whose inputs and outputs it preconditions."""
    return hasattr(scheduler, "precondition_outputs")


def edm_sigmas(scheduler: Any) -> Float[Tensor, " t"]:
    """Return the noise levels s of the training timesteps of an EDM scheduler, ascending, in float64."""
    fresh = type(scheduler).from_config(scheduler.config)
    # before `set_timesteps` it holds the levels of all training timesteps, and a last one to step to
    levels: Tensor = fresh.sigmas[: int(scheduler.config.num_train_timesteps)].double()
    return levels.sort().values


def train_log_snr(scheduler: Any) -> Float[Tensor, " t"]:
    """Return ln(alpha^2 / sigma^2) at every training timestep, in float64.

    Raises:
        UserError: If the scheduler has no alphas.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(
            f"{type(scheduler).__name__} has noise levels on a scale that is not known here: expected the scheduler of "
            "a variance-preserving, flow-matching or EDM model"
        )
    cumulative = scheduler.alphas_cumprod.to("cpu", torch.float64)
    return 2 * (cumulative.sqrt().log() - (1 - cumulative).sqrt().log())


def _flow_log_snr(sigma: float) -> float:
    if sigma <= 0:
        return math.inf
    return -math.inf if sigma >= 1 else 2 * (math.log1p(-sigma) - math.log(sigma))


def _interpolated(table: Tensor, timestep: float) -> float:
    """Interpolate linearly. Clamp the timestep, because an offset may put the first step past the end."""
    position = min(max(float(timestep), 0.0), len(table) - 1.0)
    below = int(position)
    share = position - below
    value = float(table[below])
    return value if share == 0 else (1 - share) * value + share * float(table[below + 1])
