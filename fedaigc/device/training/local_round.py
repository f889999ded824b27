"""One training round on a device: the shared-stage weights above t*, the personal adapter below it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from fedaigc.device.training.training_limits import RoundBudget, step_gain
from fedaigc.diffusion.adapters.layers import TargetModules
from fedaigc.diffusion.adapters.stages import (
    Adapter,
    SharedState,
    Stage,
    install,
    install_personal,
    new_adapter,
    read_adapter,
    read_shared,
    remove,
)
from fedaigc.diffusion.encoding import EncodedImages
from fedaigc.diffusion.training import TrainingSettings, stage_gradients, train_stage
from fedaigc.rng import rng
from fedaigc.strategy.client_rule import ClientRule, LocalResult, Parameters, Received

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(eq=False)
class SharedStageWork:
    """`LocalWork` on the private images of one device.

    The seed and the round determine everything that is drawn.

    Attributes:
        pipe: Pipeline to train.
        data: Encoded private images.
        settings: Training settings of the federation.
        num_steps: Local steps of this client.
        seed: Seed of the device.
        round: Number of the round, from 1.
        losses: Losses of the steps so far.
        budget: Budget that steps and gradient batches are taken from; None for no limit.
        target_modules: Layers of new factors, as in `selected_layers`; None for the default ones.
    """

    pipe: "DiffusionPipeline"
    data: EncodedImages
    settings: TrainingSettings
    num_steps: int
    seed: int
    round: int
    losses: list[float] = field(default_factory=list)
    budget: RoundBudget | None = None
    target_modules: TargetModules | None = None

    @property
    def num_examples(self) -> int:
        """n_k: the number of private images."""
        return len(self.data)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the local optimizer."""
        return self.settings.learning_rate

    def fresh(self, rank: int, alpha: float) -> Adapter:
        """Return new factors; see `LocalWork`."""
        return new_adapter(
            self.pipe,
            generator=rng(self.seed, "fresh"),
            rank=rank,
            alpha=alpha,
            target_modules=self.target_modules,
        )

    def train(
        self,
        start: SharedState,
        *,
        trained: Callable[[str], bool],
        steps: int | None = None,
        loss_term: Callable[[Parameters], Tensor | None] | None = None,
        gradient_term: Callable[[Parameters], Parameters] | None = None,
        stream: str = "shared",
    ) -> SharedState:
        """Train from `start`; see `LocalWork`."""
        steps = self.num_steps if steps is None else steps
        self._take(steps, start)
        install(self.pipe, start)
        self.losses += train_stage(
            self.pipe,
            Stage.SHARED,
            self.data,
            steps=steps,
            settings=self.settings,
            boundary_log_snr=start.boundary_log_snr,
            generator=rng(self.seed, "train", stream, self.round),
            trained=trained,
            loss_term=loss_term,
            gradient_term=gradient_term,
        )
        # copies, since the next device of this process trains the same parameters
        return read_shared(self.pipe, start)

    def gradients(
        self,
        at: SharedState,
        *,
        wanted: Callable[[str], bool],
        batches: int,
        band: tuple[float, float] = (0.0, 1.0),
        stream: str = "gradients",
    ) -> Iterator[Parameters]:
        """Yield the gradients at `at`, batch by batch; see `LocalWork`."""
        self._take(batches, at)
        install(self.pipe, at)
        return stage_gradients(
            self.pipe,
            Stage.SHARED,
            self.data,
            batches=batches,
            settings=self.settings,
            boundary_log_snr=at.boundary_log_snr,
            generator=rng(self.seed, "train", stream, self.round),
            wanted=wanted,
            band=band,
        )

    def _take(self, steps: int, start: SharedState) -> None:
        if self.budget is not None:
            self.budget.take(steps, step_gain(start))


def put_adapters(pipe: "DiffusionPipeline", shared: SharedState | None, personal: Adapter | None) -> None:
    """Make the pipeline hold exactly these weights; None removes the factors of a stage.

    A pipeline may serve several devices in one process, so the personal factors of the previous one must not
    remain.
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
    received: Received,
    personal: Adapter | None,
    memory: Mapping[str, Tensor],
    rule: ClientRule,
    data: EncodedImages,
    settings: TrainingSettings,
    *,
    seed: int,
    local_steps: int,
    rank: int,
    target_modules: TargetModules | None = None,
    budget: RoundBudget | None = None,
) -> tuple[LocalResult, Adapter | None, dict[str, float]]:
    """Train both stages, each on its own side of t*.

    Everything drawn depends on `seed`, the stage and the round, so a repeated round repeats exactly.

    Args:
        pipe: Pipeline to train.
        received: What the client received; the shared stage starts from it.
        personal: Personal adapter to start from; None for fresh factors.
        memory: Memory of the rule.
        rule: Client half of the strategy, which trains the shared stage.
        data: Encoded private images.
        settings: Training settings of the federation.
        seed: Seed of the device.
        local_steps: Local steps of the shared stage.
        rank: Rank of fresh personal factors.
        target_modules: Layers of fresh factors, as in `selected_layers`; None for the default ones.
        budget: See `SharedStageWork`.

    Returns:
        The rule's result, of which the upload may leave the device; the new personal adapter, which stays, or
        None if t* leaves no personal stage or no personal steps were requested; and the mean loss by stage.
    """
    work = SharedStageWork(
        pipe,
        data,
        settings,
        local_steps,
        seed,
        received.round,
        budget=budget,
        target_modules=target_modules,
    )
    result = rule.client(work, received, memory)
    losses = {Stage.SHARED: work.losses}
    trained = None
    if received.shared.boundary_log_snr is not None and settings.personal_steps:
        trained, losses[Stage.PERSONAL] = personal_round(
            pipe,
            personal,
            data,
            settings,
            boundary_log_snr=received.shared.boundary_log_snr,
            seed=seed,
            round=received.round,
            rank=rank,
            target_modules=target_modules,
        )
    means = {f"{stage}_loss": sum(values) / max(len(values), 1) for stage, values in losses.items()}
    return result, trained, means


def personal_round(
    pipe: "DiffusionPipeline",
    personal: Adapter | None,
    data: EncodedImages,
    settings: TrainingSettings,
    *,
    boundary_log_snr: float,
    seed: int,
    round: int,
    rank: int,
    target_modules: TargetModules | None = None,
) -> tuple[Adapter, list[float]]:
    """Train the personal stage, in which no strategy takes part.

    Returns:
        The new factors, and the loss of every step.
    """
    if personal is None:
        generator = rng(seed, "personal")
        personal = new_adapter(pipe, generator=generator, rank=rank, target_modules=target_modules)
    install_personal(pipe, personal)
    losses = train_stage(
        pipe,
        Stage.PERSONAL,
        data,
        steps=settings.personal_steps,
        settings=settings,
        boundary_log_snr=boundary_log_snr,
        generator=rng(seed, "train", Stage.PERSONAL.value, round),
    )
    return read_adapter(pipe, Stage.PERSONAL), losses
