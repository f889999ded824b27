"""The training objective of a denoiser: which timesteps a stage has, what the denoiser receives, and its target.

The denoiser receives noisy latents and learns a target. For a clean latent x0, standard normal noise e, the
cumulative product a_t of the schedule's alphas, and a flow time s:

    variance preserving    x_t = sqrt(a_t) x0 + sqrt(1 - a_t) e
        epsilon            target = e
        sample             target = x0
        v_prediction       target = v = sqrt(a_t) e - sqrt(1 - a_t) x0

    flow matching          x_s = (1 - s) x0 + s e
                           target = e - x0

    EDM                    x_s = x0 + s e, times c_in as the denoiser's input
                           target = (x0 - c_skip x_s) / c_out

The EDM scheduler itself defines c_in, c_skip and c_out at each s. The loss is the mean squared error between
prediction and target. With `min_snr_gamma`, variance-preserving schedules and EDM weight the squared error of x0 by
min(SNR, gamma), where SNR = a_t / (1 - a_t), or 1 / s^2. The weight of the squared error of each target follows from
it:

    epsilon         min(SNR, gamma) / SNR
    sample          min(SNR, gamma)
    v_prediction    min(SNR, gamma) / (SNR + 1)
    EDM             min(SNR, gamma) c_out^2

Timesteps are drawn uniformly from those noisier than t* (shared stage) or from the others (personal stage).

References:
    Ho et al. 2020, Salimans and Ho 2022, Lipman et al. 2023 (objective).
    Hang et al. 2023 (min-SNR weighting).
    Karras et al. 2022 (EDM).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.adapters.stages import Stage
from fedaigc.diffusion.schedule.noise_level import edm_sigmas, is_edm, is_flow, train_log_snr
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_FLOW_STEPS = 1000  # timesteps of flow models run from 0 to 1000
_PREDICTIONS = ("epsilon", "sample", "v_prediction")


class TimestepSampler:
    """Draws training timesteps on one side of t* and provides the signal and noise scale of each.

    Args:
        pipe: The pipeline whose scheduler defines the training timesteps.
        stage: The stage whose timesteps are drawn. The base stage has all of them.
        boundary_log_snr: t* as a log-SNR. None assigns every timestep to the shared stage.
        band: The part of the stage's timesteps to keep, as fractions from its cleanest (0) to its noisiest
            (1).

    Attributes:
        timesteps: The candidate timesteps as the denoiser expects them, ascending from clean to noisy.
        signal: Factor of the clean latents at each timestep.
        noise: Factor of the noise at each timestep.
        is_flow: Whether the pipeline's scheduler follows flow matching.
        prediction_type: The scheduler's "epsilon", "sample" or "v_prediction", or "flow" or "edm".
        scale: c_in, c_skip and c_out at each timestep of an EDM model [3, t], else None.

    Raises:
        UserError: If the scheduler's noise levels or its prediction type are not known here.
        ValueError: If no timestep belongs to the stage, or if the band is empty.
    """

    def __init__(
        self,
        pipe: "DiffusionPipeline",
        stage: Stage,
        boundary_log_snr: float | None,
        band: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        scheduler: Any = getattr(pipe, "scheduler")  # noqa: B009 (the base class declares none)
        self.is_flow = is_flow(scheduler)
        scale = None
        if self.is_flow:
            self.prediction_type = "flow"
            timesteps = torch.arange(1, _FLOW_STEPS + 1, dtype=torch.float64)
            noise = timesteps / _FLOW_STEPS
            signal = 1 - noise
        elif is_edm(scheduler):
            self.prediction_type = "edm"
            noise = edm_sigmas(scheduler)
            signal = torch.ones_like(noise)
            timesteps, scale = scheduler.precondition_noise(noise), _edm_scale(scheduler, noise)
        else:
            train_log_snr(scheduler)  # refuses schedules of another kind
            self.prediction_type = str(scheduler.config.get("prediction_type"))
            if self.prediction_type not in _PREDICTIONS:
                raise UserError(
                    f"{type(scheduler).__name__} has prediction_type {self.prediction_type!r:.60}: only models that "
                    f"predict one of {', '.join(_PREDICTIONS)} can be trained here"
                )
            cumulative = scheduler.alphas_cumprod.to("cpu", torch.float64)
            timesteps = torch.arange(len(cumulative), dtype=torch.float64)
            signal, noise = cumulative.sqrt(), (1 - cumulative).sqrt()
        log_snr = 2 * (signal.log() - noise.log())
        personal = torch.zeros_like(log_snr, dtype=torch.bool)
        if boundary_log_snr is not None:
            personal = log_snr >= boundary_log_snr
        mine = {Stage.SHARED: ~personal, Stage.PERSONAL: personal, Stage.BASE: torch.ones_like(personal)}[
            stage
        ]
        if not mine.any():
            raise ValueError(f"no timestep belongs to the {stage} stage: t* at log-SNR {boundary_log_snr}")
        count = int(mine.sum())  # timesteps ascend from clean to noisy
        kept = slice(round(band[0] * count), round(band[1] * count))
        self.timesteps = timesteps[mine].float()[kept]
        self.signal, self.noise = signal[mine].float()[kept], noise[mine].float()[kept]
        self.scale = None if scale is None else scale[:, mine].float()[:, kept]
        if not len(self.timesteps):
            raise ValueError(f"the band {band} of the {stage} stage's {count} timesteps is empty")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` indices into `timesteps`, uniformly."""
        return torch.randint(len(self.timesteps), (count,), generator=generator)

    def noisy(self, clean: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        """Return the denoiser's input [b, c, h, w]: latents with noise added at the drawn timesteps."""
        noisy = _per_sample(self.signal[drawn]) * clean + _per_sample(self.noise[drawn]) * noise
        return noisy if self.scale is None else _per_sample(self.scale[0, drawn]) * noisy

    def target(self, clean: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        """Return the training target of the denoiser.

        Raises:
            ValueError: If the prediction type is unknown.
        """
        signal, sigma = _per_sample(self.signal[drawn]), _per_sample(self.noise[drawn])
        targets: dict[str, Callable[[], Tensor]] = {
            "epsilon": lambda: noise,
            "sample": lambda: clean,
            "v_prediction": lambda: signal * noise - sigma * clean,
            "flow": lambda: noise - clean,
            "edm": lambda: self._edm_target(clean, noise, drawn),
        }
        if self.prediction_type not in targets:
            raise ValueError(
                f"prediction type {self.prediction_type!r}: expected one of {', '.join(targets)}"
            )
        return targets[self.prediction_type]()

    def _edm_target(self, clean: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        assert self.scale is not None
        _, skip, out = (_per_sample(factor) for factor in self.scale[:, drawn])
        return (clean - skip * (clean + _per_sample(self.noise[drawn]) * noise)) / out

    def weight(self, drawn: Tensor, min_snr_gamma: float | None) -> Float[Tensor, " b"]:
        """Return the loss weight of each sample: min-SNR for the squared error of the target, else 1.

        The weight is 1 for flow models, and when `min_snr_gamma` is None.
        """
        if min_snr_gamma is None or self.is_flow:
            return torch.ones(len(drawn))
        snr = (self.signal[drawn] / self.noise[drawn]) ** 2
        clipped = snr.clamp(max=min_snr_gamma)
        if self.scale is not None:
            return clipped * self.scale[2, drawn] ** 2
        # the squared error of x0 is 1/SNR times that of e and 1/(SNR + 1) times that of v
        return {"epsilon": clipped / snr.clamp(min=1e-8), "v_prediction": clipped / (snr + 1)}.get(
            self.prediction_type, clipped
        )


def _edm_scale(scheduler: Any, sigmas: Float[Tensor, " t"]) -> Float[Tensor, "3 t"]:
    """Return c_in, c_skip and c_out of an EDM scheduler at each noise level."""
    one, zero = torch.ones_like(sigmas), torch.zeros_like(sigmas)
    skip, out = (scheduler.precondition_outputs(*pair, sigmas) for pair in ((one, zero), (zero, one)))
    return torch.stack([scheduler.precondition_inputs(one, sigmas), skip, out])


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
