"""Local training of one stage's weights, on that stage's side of the boundary t*.

The denoiser receives noisy latents and learns a target. For a clean latent x0, standard normal noise e, the
cumulative product a_t of the schedule's alphas, and a flow time s:

    variance preserving    x_t = sqrt(a_t) x0 + sqrt(1 - a_t) e
        epsilon            target = e
        sample             target = x0
        v_prediction       target = v = sqrt(a_t) e - sqrt(1 - a_t) x0

    flow matching          x_s = (1 - s) x0 + s e
                           target = e - x0

The loss is the mean squared error between prediction and target. With `min_snr_gamma`, variance-preserving
schedules weight the squared error of x0 by min(SNR, gamma), where SNR = a_t / (1 - a_t). The weight of the
squared error of each target follows from it:

    epsilon         min(SNR, gamma) / SNR
    sample          min(SNR, gamma)
    v_prediction    min(SNR, gamma) / (SNR + 1)

Timesteps are drawn uniformly from those noisier than t* (shared stage) or from the others (personal stage).

References:
    Ho et al. 2020, Salimans and Ho 2022, Lipman et al. 2023 (objective).
    Hang et al. 2023 (min-SNR weighting).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from fedaigc.diffusion.adapters.stages import Stage, activate, stage_parameters
from fedaigc.diffusion.encoding import EncodedImages, predict
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.schedule.noise_level import is_flow
from fedaigc.validation import NO_LIMIT

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_FLOW_STEPS = 1000  # timesteps of flow models run from 0 to 1000


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a client's local training, a part of the federation's config.

    Attributes:
        local_steps: Optimizer steps per round in the shared stage.
        personal_steps: Optimizer steps per round in the personal stage.
        batch_size: Images per optimizer step, drawn with replacement.
        learning_rate: Learning rate of the optimizer.
        min_snr_gamma: The gamma of the min-SNR weighting. None weights all noise levels equally.
        condition_dropout: Probability that a caption is replaced by the empty one. Classifier-free guidance
            needs this.
        optimizer: "adamw" (without weight decay) or "sgd".
        clip_norm: Upper bound on the norm of each step's gradient. None, `inf` in TOML: no clipping.
        stages: Stages that are trained. With ["shared"], personal adapters stay as they are and
            `personal_steps` is 0. ["personal"] is refused, since rounds aggregate the shared stage.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    local_steps: Annotated[int, Field(ge=1)] = 20
    personal_steps: Annotated[int, Field(ge=0)] = 40
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    condition_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    clip_norm: Annotated[Annotated[float, Field(gt=0)] | None, NO_LIMIT] = None
    stages: tuple[Literal["shared", "personal"], ...] = ("shared", "personal")

    def __post_init__(self) -> None:
        if "shared" not in self.stages:
            raise ValueError(
                f"training.stages is {list(self.stages)}: rounds aggregate the shared stage, so without it there is "
                'nothing to send; expected ["shared"] or ["shared", "personal"]. To train personal adapters over '
                'the clients\' own shared stages, choose the strategy "local_only"'
            )
        if "personal" not in self.stages:
            object.__setattr__(self, "personal_steps", 0)


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
        prediction_type: The scheduler's "epsilon", "sample" or "v_prediction", or "flow".

    Raises:
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
        self.prediction_type = "flow" if self.is_flow else str(scheduler.config.prediction_type)
        if self.is_flow:
            timesteps = torch.arange(1, _FLOW_STEPS + 1, dtype=torch.float64)
            noise = timesteps / _FLOW_STEPS
            signal = 1 - noise
        else:
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
        if not len(self.timesteps):
            raise ValueError(f"the band {band} of the {stage} stage's {count} timesteps is empty")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` indices into `timesteps`, uniformly."""
        return torch.randint(len(self.timesteps), (count,), generator=generator)

    def noisy(self, clean: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        """Return latents [b, c, h, w] with noise added at the drawn timesteps."""
        return _per_sample(self.signal[drawn]) * clean + _per_sample(self.noise[drawn]) * noise

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
        }
        if self.prediction_type not in targets:
            raise ValueError(
                f"prediction type {self.prediction_type!r}: expected one of {', '.join(targets)}"
            )
        return targets[self.prediction_type]()

    def weight(self, drawn: Tensor, min_snr_gamma: float | None) -> Float[Tensor, " b"]:
        """Return the loss weight of each sample: min-SNR for the squared error of the target, else 1.

        The weight is 1 for flow models, and when `min_snr_gamma` is None.
        """
        if min_snr_gamma is None or self.is_flow:
            return torch.ones(len(drawn))
        snr = (self.signal[drawn] / self.noise[drawn]) ** 2
        clipped = snr.clamp(max=min_snr_gamma)
        # the squared error of x0 is 1/SNR times that of e and 1/(SNR + 1) times that of v
        return {"epsilon": clipped / snr.clamp(min=1e-8), "v_prediction": clipped / (snr + 1)}.get(
            self.prediction_type, clipped
        )


def denoising_loss(
    pipe: "DiffusionPipeline",
    sampler: TimestepSampler,
    data: EncodedImages,
    rows: Tensor,
    generator: torch.Generator,
    settings: TrainingSettings,
) -> Float[Tensor, ""]:
    """Return the loss on one mini-batch.

    Args:
        pipe: The pipeline whose denoiser is evaluated.
        sampler: Draws the timesteps.
        data: The encoded images.
        rows: Indices [b] of the images in `data`.
        generator: CPU generator for timesteps, noise and dropped captions.
        settings: Provides `condition_dropout` and `min_snr_gamma`.
    """
    clean = data.latents[rows].float()
    drawn = sampler.draw(len(rows), generator)
    noise = torch.randn(clean.shape, generator=generator)
    dropped = torch.rand(len(rows), generator=generator) < settings.condition_dropout
    network = next(denoiser(pipe).parameters())
    text = {}
    for name, embeds in data.text.items():
        chosen = torch.where(dropped.view(-1, *[1] * (embeds.dim() - 1)), data.empty_text[name], embeds[rows])
        text[name] = chosen.to(network)
    noisy = sampler.noisy(clean, noise, drawn).to(network)
    answer = predict(pipe, noisy, sampler.timesteps[drawn].to(network.device), text)
    error = (answer.float() - sampler.target(clean, noise, drawn).to(network.device)) ** 2
    return (
        sampler.weight(drawn, settings.min_snr_gamma).to(network.device) * error.flatten(1).mean(1)
    ).mean()


def train_stage(
    pipe: "DiffusionPipeline",
    stage: Stage,
    data: EncodedImages,
    *,
    steps: int,
    settings: TrainingSettings,
    boundary_log_snr: float | None,
    generator: torch.Generator,
    trained: Callable[[str], bool] | None = None,
    loss_term: Callable[[Mapping[str, nn.Parameter]], Tensor | None] | None = None,
    gradient_term: Callable[[Mapping[str, nn.Parameter]], Mapping[str, Tensor]] | None = None,
) -> list[float]:
    """Train the installed weights of `stage` and return the loss of each step.

    W0 and the factors of the other stage do not change. All random numbers come from `generator`, a CPU
    generator, so that a seed draws the same batches and noise on any device.

    Args:
        pipe: The pipeline in which the stage's weights are installed.
        stage: The stage to train.
        data: The encoded images to train on.
        steps: Number of optimizer steps.
        settings: Batch size, learning rate and the other settings of a step.
        boundary_log_snr: t* as a log-SNR. None assigns every timestep to the shared stage.
        generator: CPU generator for everything that is drawn.
        trained: Selects parameters by the names that `stage_parameters` gives them. None selects the factors.
        loss_term: Returns a term to add to the loss, e.g. a proximal term, given the trained parameters.
        gradient_term: Returns terms to add to the gradients of the parameters that it names, given the
            trained parameters. They are added before clipping.

    Returns:
        The loss of each step, without `loss_term`.

    Raises:
        ValueError: If no parameter is selected for training, or if no timestep belongs to the stage.
    """
    sampler = TimestepSampler(pipe, stage, boundary_log_snr)
    with _trainable(pipe, stage, trained) as parameters:
        optimizer = _optimizer(list(parameters.values()), settings)
        losses = []
        for _ in range(steps):
            rows = torch.randint(len(data), (settings.batch_size,), generator=generator)
            loss = denoising_loss(pipe, sampler, data, rows, generator, settings)
            extra = loss_term(parameters) if loss_term is not None else None
            optimizer.zero_grad(set_to_none=True)
            (loss if extra is None else loss + extra).backward()
            for name, term in (gradient_term(parameters) if gradient_term is not None else {}).items():
                gradient = parameters[name].grad
                parameters[name].grad = term.to(parameters[name]) if gradient is None else gradient + term
            if settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters.values(), settings.clip_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def stage_gradients(
    pipe: "DiffusionPipeline",
    stage: Stage,
    data: EncodedImages,
    *,
    batches: int,
    settings: TrainingSettings,
    boundary_log_snr: float | None,
    generator: torch.Generator,
    wanted: Callable[[str], bool] | None = None,
    band: tuple[float, float] = (0.0, 1.0),
) -> Iterator[dict[str, Tensor]]:
    """Yield the gradient of the loss for each of several mini-batches, without changing the weights.

    Args:
        pipe: The pipeline in which the stage's weights are installed.
        stage: The stage whose gradients are computed.
        data: The encoded images.
        batches: Number of mini-batches.
        settings: Batch size and the other settings of a step.
        boundary_log_snr: t* as a log-SNR. None assigns every timestep to the shared stage.
        generator: CPU generator for everything that is drawn.
        wanted: Selects parameters by the names that `stage_parameters` gives them. None selects the factors.
        band: The part of the stage's timesteps to draw from, as fractions from its cleanest (0) to its
            noisiest (1).

    Yields:
        One gradient per selected parameter name.

    Raises:
        ValueError: If the band is empty, if no parameter is selected, or if no timestep belongs to the stage.
    """
    sampler = TimestepSampler(pipe, stage, boundary_log_snr, band)
    with _trainable(pipe, stage, wanted) as parameters:
        for _ in range(batches):
            rows = torch.randint(len(data), (settings.batch_size,), generator=generator)
            loss = denoising_loss(pipe, sampler, data, rows, generator, settings)
            found = torch.autograd.grad(loss, list(parameters.values()))
            yield dict(zip(parameters, found, strict=True))


@contextmanager
def _trainable(
    pipe: "DiffusionPipeline", stage: Stage, wanted: Callable[[str], bool] | None
) -> Iterator[dict[str, nn.Parameter]]:
    """Activate `stage` and enable gradients for its selected parameters only, within the context."""
    activate(pipe, stage)
    chosen = {
        name: parameter
        for name, parameter in stage_parameters(pipe, stage).items()
        if (wanted(name) if wanted is not None else not name.endswith(".residual"))
    }
    if not chosen:
        raise ValueError(
            f"the {stage} stage has no parameters to train: none is installed or none is selected"
        )
    denoiser(pipe).requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    try:
        yield chosen
    finally:
        for parameter in chosen.values():
            parameter.requires_grad_(False)
            parameter.grad = None


def _optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate)
    # weight decay would pull towards zero factors, not towards the state at the start of the round
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
