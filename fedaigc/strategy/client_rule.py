"""The client half of a strategy, and the local work that it may request on its device."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from fedaigc.diffusion.adapters.stages import Adapter, SharedState

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Received:
    """What a client has at the start of a round.

    Attributes:
        shared: State that was sent, at this client's rank.
        round: Number of the round, from 1.
        extra: Further tensors that the strategy sends, by name (e.g. SCAFFOLD's control variate).
    """

    shared: SharedState
    round: int
    extra: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class LocalResult:
    """The result of the client half.

    Attributes:
        upload: Tensors to send.
        memory: Tensors that the device keeps for its next round and never sends (`device.home.versions`).
        rank: Rank of the factors in `upload`, if the client chose another than it received.
    """

    upload: Mapping[str, Tensor] = field(repr=False)
    memory: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    rank: int | None = None


@runtime_checkable
class LocalWork(Protocol):
    """Training on the private images of one device, on the noisy side of t*, as a strategy requests it."""

    @property
    def num_steps(self) -> int:
        """Local steps of this client in this round."""
        ...

    @property
    def num_examples(self) -> int:
        """n_k: the number of private images."""
        ...

    @property
    def learning_rate(self) -> float:
        """Learning rate of the local optimizer."""
        ...

    def fresh(self, rank: int, alpha: float) -> Adapter:
        """Return new factors for every layer that takes them: A drawn from the device's seed, B zero."""
        ...

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
        """Train from `start` and return the same state with new values of the trained tensors.

        Args:
            start: State to start from.
            trained: Whether a tensor is trained, by its name in `SharedState.tensors`.
            steps: Number of steps; None for `num_steps`.
            loss_term: Term that is added to the loss of each step.
            gradient_term: Terms that are added to the gradients of the parameters that it names. Their own
                gradients are in `.grad` when it is called.
            stream: Name of the random stream of images, timesteps and noise; the same (round, stream) repeats
                it.
        """
        ...

    def gradients(
        self,
        at: SharedState,
        *,
        wanted: Callable[[str], bool],
        batches: int,
        band: tuple[float, float] = (0.0, 1.0),
        stream: str = "gradients",
    ) -> Iterator[Parameters]:
        """Yield the gradient of the loss at `at` for each of `batches` mini-batches, without training.

        Args:
            at: State at which gradients are taken.
            wanted: Whether a tensor's gradient is wanted, by its name in `SharedState.tensors`.
            batches: Number of mini-batches.
            band: Part of the shared stage's timesteps to draw from, as shares from its cleanest (0) to its
                noisiest (1).
            stream: Name of the random stream, as in `train`.
        """
        ...


@runtime_checkable
class ClientRule(Protocol):
    """Interface of the client half, which is pure except for the work that it requests."""

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Run one round on the device; `memory` is empty in the first."""
        ...

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return the shared-stage model that the device itself would run: the global one, or its own."""
        ...
