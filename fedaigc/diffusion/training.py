"""Local training steps of one stage's factors, on the stage's own side of the boundary t*.

Objective (Ho et al. 2020; Salimans and Ho 2022; Lipman et al. 2023): for x0 a latent, e normal noise,
    variance preserving   x_t = sqrt(a_t) x0 + sqrt(1 - a_t) e,   target e, x0 or v = sqrt(a_t) e - sqrt(1 -
    a_t) x0 flow matching         x_s = (1 - s) x0 + s e,                 target e - x0
and the loss is the mean squared error, on variance preserving schedules weighted by min(SNR, gamma) (Hang et
al. 2023), with timesteps drawn evenly over those noisier than t* (shared stage) or not noisier (personal
stage).
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

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_FLOW_STEPS = 1000  # flow models number their noise levels 0 to 1000


@dataclass(frozen=True)
class TrainingSettings:
    """How a client trains; part of the federation's config.

    `local_steps` and `personal_steps` are optimizer steps a round. `min_snr_gamma` None weighs all noise
    levels alike. `condition_dropout` is the share of captions replaced by the empty one, which guidance
    needs. `clip_norm` bounds the norm of each step's gradient.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    local_steps: Annotated[int, Field(ge=1)] = 20
    personal_steps: Annotated[int, Field(ge=0)] = 40
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    condition_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class TimestepSampler:
    """Draws training timesteps on one side of t*, and knows the noise at each.

    `boundary_log_snr` None puts every timestep into the shared stage. Raises ValueError when the stage has
    none. `band` keeps a part of the stage's timesteps, as shares from its cleanest (0) to its noisiest (1).
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
        count = int(mine.sum())  # timesteps run from clean to noisy
        kept = slice(round(band[0] * count), round(band[1] * count))
        self.timesteps = timesteps[mine].float()[kept]
        self.signal, self.noise = signal[mine].float()[kept], noise[mine].float()[kept]
        if not len(self.timesteps):
            raise ValueError(f"the band {band} of the {stage} stage's {count} timesteps is empty")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` positions into `timesteps`, even over them."""
        return torch.randint(len(self.timesteps), (count,), generator=generator)

    def noisy(self, clean: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        """Latents [b, c, h, w] with the noise of the drawn timesteps."""
        return _per_sample(self.signal[drawn]) * clean + _per_sample(self.noise[drawn]) * noise

    def target(self, clean: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        """What the denoiser should answer. Raises ValueError for an unknown prediction type."""
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
        """min(SNR, gamma) in units of the squared error of the target; 1 for flows and without gamma."""
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
    """The loss on the images `rows` [b].

    Timesteps, noise and dropped captions come from `generator` (CPU).
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
    """Train the installed weights of `stage` for `steps` optimizer steps and return the loss of each.

    trained: which parameters, by the names of `stage_parameters`; None for the factors. `loss_term` is added
    to the loss (a proximal term, say), `gradient_term` to the gradients that it names, before they are
    clipped; both get the trained parameters. Everything drawn comes from `generator`, a CPU generator, so
    that the same seed trains the same weights on any device. W0 and the other stage's factors do not move.
    Raises ValueError when nothing is to be trained.
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
    """The gradient of the loss for each of `batches` mini-batches; the installed weights do not move.

    band: the part of the stage's timesteps to draw from, as shares from its cleanest (0) to its noisiest (1).
    Raises ValueError for an empty band.
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
    """Only the wanted parameters of `stage` take gradients, and that stage runs, within the context."""
    activate(pipe, stage)
    chosen = {
        name: parameter
        for name, parameter in stage_parameters(pipe, stage).items()
        if (wanted(name) if wanted is not None else not name.endswith(".residual"))
    }
    if not chosen:
        raise ValueError(f"the {stage} stage has no parameters to train: none is installed, or none wanted")
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
    # weight decay pulls towards zero factors, not towards the state that the round started from
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
