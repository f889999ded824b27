"""One round of training on a device: the shared-stage adapter above t*, the personal one below it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from fedaigc.diffusion.adapters import (
    Adapter,
    SharedState,
    Stage,
    install,
    install_personal,
    new_adapter,
    read_adapter,
    remove,
)
from fedaigc.diffusion.encoding import EncodedImages
from fedaigc.diffusion.training import TrainingSettings, train_stage
from fedaigc.rng import rng

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@runtime_checkable
class ClientRule(Protocol):
    """The client half of a strategy: what `fedaigc.federation.rule.Rule` asks of it."""

    def begin(self, shared: SharedState) -> Adapter:
        """The factors from which the client trains."""
        ...

    def loss_term(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """Added to the loss of every local step; None adds nothing."""
        ...

    def after_step(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Called after every optimizer step, may correct the parameters in place."""
        ...

    def upload(self, trained: Adapter) -> Mapping[str, Tensor]:
        """The tensors of the update."""
        ...


@dataclass(frozen=True, eq=False)
class LocalRound:
    """What a round ends with. `personal` stays on the device; it is None when t* leaves no personal stage."""

    upload: Mapping[str, Tensor]
    personal: Adapter | None
    losses: Mapping[str, float]


def put_adapters(pipe: "DiffusionPipeline", shared: SharedState | None, personal: Adapter | None) -> None:
    """Make the pipeline hold exactly these weights; None takes a stage's factors out.

    A pipeline may serve several devices in one process: the last one's personal factors must not remain.
    """
    if shared is None:
        remove(pipe, Stage.SHARED)
    else:
        install(pipe, shared)
    if personal is None:
        remove(pipe, Stage.PERSONAL)
    else:
        install_personal(pipe, personal)


def local_round(
    pipe: "DiffusionPipeline",
    shared: SharedState,
    personal: Adapter | None,
    rule: ClientRule,
    data: EncodedImages,
    settings: TrainingSettings,
    *,
    seed: int,
    round: int,
) -> LocalRound:
    """Train both stages from `shared` and `personal` (None: fresh factors), each on its own side of t*.

    Everything drawn depends on `seed`, the stage and the round, so that a repeated round repeats exactly.
    """
    start = rule.begin(shared)
    fresh = personal or new_adapter(
        pipe, generator=rng(seed, "personal"), rank=shared.rank, alpha=shared.alpha
    )
    put_adapters(pipe, shared.with_adapter(start), fresh)

    def train(stage: Stage, steps: int, **hooks: Callable[..., Any]) -> Sequence[float]:
        return train_stage(
            pipe,
            stage,
            data,
            steps=steps,
            settings=settings,
            boundary_log_snr=shared.boundary_log_snr,
            generator=rng(seed, "train", stage.value, round),
            **hooks,
        )

    losses = {
        Stage.SHARED: train(
            Stage.SHARED, settings.shared_steps, loss_term=rule.loss_term, after_step=rule.after_step
        )
    }
    # copies: the next device of this process trains in the same parameters
    upload = {name: tensor.clone() for name, tensor in rule.upload(read_adapter(pipe, Stage.SHARED)).items()}
    trained = None
    if shared.boundary_log_snr is not None:
        losses[Stage.PERSONAL] = train(Stage.PERSONAL, settings.personal_steps)
        trained = read_adapter(pipe, Stage.PERSONAL)
    return LocalRound(
        upload, trained, {f"{stage}_loss": _coarse_mean(values) for stage, values in losses.items()}
    )


def _coarse_mean(losses: Sequence[float]) -> float:
    # two decimals: enough to see training, too little to carry anything else
    return round(sum(losses) / max(len(losses), 1), 2)
