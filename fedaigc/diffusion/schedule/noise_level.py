"""How noisy a timestep is: log-SNR, the one scale on which the stage boundary t* is given.

Variance-preserving schedules, x_t = alpha x_0 + sigma e with alpha^2 + sigma^2 = 1: ln(alpha^2 / sigma^2).
Flow matching, x_s = (1 - s) x_0 + s e: ln((1 - s)^2 / s^2).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.errors import UserError


def boundary_log_snr(pipe_or_scheduler: Any, train_timestep: float) -> float:
    """The log-SNR at a timestep of training, to state t* by: timestep 500 of 1000, say.

    Timesteps count from 0 to T - 1; for flow matching they are T s, from 0 (no noise: +inf) to T (only noise:
    -inf), T = num_train_timesteps. Between two timesteps the log-SNR is interpolated linearly. Raises
    UserError outside the range, and for schedulers that know neither alphas nor flows.
    """
    scheduler = getattr(pipe_or_scheduler, "scheduler", pipe_or_scheduler)
    last = int(scheduler.config.num_train_timesteps) - (0 if is_flow(scheduler) else 1)
    if not 0 <= train_timestep <= last:
        raise UserError(f"timestep {train_timestep} is outside of training: expected 0 to {last}")
    return noise_levels(scheduler, [train_timestep], None)[0]


def noise_levels(
    scheduler: Any, timesteps: Sequence[float], sigmas: Sequence[float] | None
) -> tuple[float, ...]:
    """The log-SNR that the denoiser is told at each of `timesteps`.

    sigmas: used only where timesteps are no positions in the training schedule (continuous timesteps), in the
    variance-exploding scale of those schedulers, sigma / alpha.
    """
    config = scheduler.config
    if is_flow(scheduler):
        return tuple(_flow_log_snr(timestep / config.num_train_timesteps) for timestep in timesteps)
    if config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction":
        if sigmas is None:
            raise UserError(f"{type(scheduler).__name__} has continuous timesteps: state the log-SNR itself")
        return tuple(-2 * math.log(sigma) for sigma, _ in zip(sigmas, timesteps, strict=False))
    table = train_log_snr(scheduler)
    return tuple(_interpolated(table, timestep) for timestep in timesteps)


def signal_and_noise(scheduler: Any, log_snr: float) -> tuple[float, float]:
    """alpha and sigma of x = alpha x_0 + sigma e at a log-SNR, in the scale that the scheduler keeps.

    Variance-preserving (alpha^2 + sigma^2 = 1), flow (alpha + sigma = 1), or variance-exploding (alpha = 1)
    where the scheduler itself scales what it shows the denoiser. At -inf pure noise has alpha 0 and sigma 1.
    """
    ratio = math.exp(-log_snr / 2) if log_snr > -1000 else math.inf
    if is_flow(scheduler):
        return (0.0, 1.0) if math.isinf(ratio) else (1 / (1 + ratio), ratio / (1 + ratio))
    if _is_exploding(scheduler):
        return 1.0, ratio
    return (0.0, 1.0) if math.isinf(ratio) else (1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))


def _is_exploding(scheduler: Any) -> bool:
    """Whether latents are kept as x_0 + (sigma / alpha) e: the scheduler then scales the denoiser's input."""
    fresh = type(scheduler).from_config(scheduler.config)
    fresh.set_timesteps(8)
    return bool((fresh.scale_model_input(torch.ones(1), fresh.timesteps[0]) != 1).any())


def is_flow(scheduler: Any) -> bool:
    """Whether the scheduler follows flow matching: no alphas at all, or flow sigmas in place of theirs."""
    return not hasattr(scheduler, "alphas_cumprod") or bool(scheduler.config.get("use_flow_sigmas"))


def train_log_snr(scheduler: Any) -> Float[Tensor, " t"]:
    """ln(alpha^2 / sigma^2) at every timestep of training, float64. UserError where there are no alphas."""
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(
            f"{type(scheduler).__name__} knows no alphas: expected a variance-preserving scheduler"
        )
    cumulative = scheduler.alphas_cumprod.to("cpu", torch.float64)
    return 2 * (cumulative.sqrt().log() - (1 - cumulative).sqrt().log())


def _flow_log_snr(sigma: float) -> float:
    if sigma <= 0:
        return math.inf
    return -math.inf if sigma >= 1 else 2 * (math.log1p(-sigma) - math.log(sigma))


def _interpolated(table: Tensor, timestep: float) -> float:
    """Linear between the two neighbours; clamped, for an offset may put the first step past the end."""
    position = min(max(float(timestep), 0.0), len(table) - 1.0)
    below = int(position)
    share = position - below
    value = float(table[below])
    return value if share == 0 else (1 - share) * value + share * float(table[below + 1])
