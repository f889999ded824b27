"""Local training of one stage's weights, on that stage's side of the boundary t*.

`fedaigc.diffusion.objective` has the objective, `fedaigc.diffusion.half_precision` what float16 and bfloat16 need.
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
from fedaigc.diffusion.half_precision import LossScale, autocast
from fedaigc.diffusion.objective import TimestepSampler as TimestepSampler
from fedaigc.diffusion.sampling.pipeline_call import denoiser, parts_of
from fedaigc.errors import UserError
from fedaigc.validation import NO_LIMIT

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


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
        aspect_buckets: Whether an image is trained on in the size nearest to its shape, among several with at most the
            pixels of the model's size. False: in the model's size, of which images keep the middle.
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
    aspect_buckets: bool = False

    def __post_init__(self) -> None:
        if "shared" not in self.stages:
            raise ValueError(
                f"training.stages is {list(self.stages)}: rounds aggregate the shared stage, so without it there is "
                'nothing to send; expected ["shared"] or ["shared", "personal"]. To train personal adapters over '
                'the clients\' own shared stages, choose the strategy "local_only"'
            )
        if "personal" not in self.stages:
            object.__setattr__(self, "personal_steps", 0)


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
        rows: Indices [b] of the images in `data`, all of one size.
        generator: CPU generator for timesteps, noise and dropped captions.
        settings: Provides `condition_dropout` and `min_snr_gamma`.
    """
    clean = data.latents_of(rows).float()
    drawn = sampler.draw(len(rows), generator)
    noise = torch.randn(clean.shape, generator=generator)
    dropped = torch.rand(len(rows), generator=generator) < settings.condition_dropout
    network = next(denoiser(pipe).parameters())
    text, told = {}, data.text_rows(rows, generator)
    for name, embeds in data.text.items():
        chosen = torch.where(dropped.view(-1, *[1] * (embeds.dim() - 1)), data.empty_text[name], embeds[told])
        # masks and lengths keep their type
        text[name] = chosen.to(network) if chosen.is_floating_point() else chosen.to(network.device)
    noisy = sampler.noisy(clean, noise, drawn).to(network)
    with autocast(network):
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
        UserError: If the denoiser is quantized, offloaded or cached.
        ValueError: If no parameter is selected for training, or if no timestep belongs to the stage.
    """
    sampler = TimestepSampler(pipe, stage, boundary_log_snr)
    with _trainable(pipe, stage, trained) as parameters:
        optimizer = _optimizer(list(parameters.values()), settings)
        losses = []
        scale = _loss_scale(pipe)

        def computed(scale: float) -> tuple[Tensor, list[Tensor | None]]:
            rows = data.drawn_batch(settings.batch_size, generator)
            loss = denoising_loss(pipe, sampler, data, rows, generator, settings)
            extra = loss_term(parameters) if loss_term is not None else None
            optimizer.zero_grad(set_to_none=True)
            ((loss if extra is None else loss + extra) * scale).backward()
            return loss, [parameter.grad for parameter in parameters.values()]

        for _ in range(steps):
            loss, _ = scale.apply(computed, generator)
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
        scale = _loss_scale(pipe)

        def computed(scale: float) -> tuple[Tensor, tuple[Tensor, ...]]:
            rows = data.drawn_batch(settings.batch_size, generator)
            loss = denoising_loss(pipe, sampler, data, rows, generator, settings)
            return loss, torch.autograd.grad(loss * scale, list(parameters.values()))

        for _ in range(batches):
            found = scale.apply(computed, generator)[1]
            yield {
                name: gradient
                for name, gradient in zip(parameters, found, strict=True)
                if gradient is not None
            }


@contextmanager
def _trainable(
    pipe: "DiffusionPipeline", stage: Stage, wanted: Callable[[str], bool] | None
) -> Iterator[dict[str, nn.Parameter]]:
    """Activate `stage` and enable gradients for its selected parameters only, within the context."""
    _check_trainable(pipe)
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


def _check_trainable(pipe: "DiffusionPipeline") -> None:
    """Raise UserError for a denoiser that is quantized, offloaded or cached, whose gradients would be wrong."""
    network: Any = denoiser(pipe)
    # a registry without hooks stays from the context of a cache that is off
    hooked = any(
        "_hf_hook" in vars(part) or getattr(vars(part).get("_diffusers_hook"), "hooks", None)
        for part in parts_of(network)
    )
    quantized = getattr(getattr(network, "config", None), "quantization_config", None) is not None
    if hooked or quantized:
        what = "is quantized" if quantized else "has hooks (offloading, layerwise casting or a cache)"
        raise UserError(
            f"the denoiser of {type(pipe).__name__} {what}: it can sample but not train here; load the pipeline anew, "
            "in float16 or bfloat16 where memory is short"
        )


def _loss_scale(pipe: "DiffusionPipeline") -> LossScale:
    return LossScale(next(denoiser(pipe).parameters()).dtype)


def _optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate)
    # weight decay would pull towards zero factors, not towards the state at the start of the round
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
