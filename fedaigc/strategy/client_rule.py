"""The client half of a strategy, and the local work that it may order on its device."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from fedaigc.diffusion.adapters.stages import Adapter, SharedState

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Received:
    """What a client has at the start of a round.

    shared: the state that was sent, at this client's rank. extra: further tensors that the strategy sends, by
    name (SCAFFOLD's control variate, say). round: counted from 1.
    """

    shared: SharedState
    round: int
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LocalResult:
    """What the client half ends with.

    upload: the tensors that are sent. memory: what the device keeps for its next round and never sends.
    rank: of the factors in `upload`, where the client chose another than it received.
    """

    upload: Mapping[str, Tensor]
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    rank: int | None = None


@runtime_checkable
class LocalWork(Protocol):
    """Training on the private images of one device, on the noisy side of t*, as a strategy may order it."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps of this client in this round."""
        ...

    @property
    def num_examples(self) -> int:
        """n_k: the private images."""
        ...

    @property
    def learning_rate(self) -> float:
        """Of the local optimizer."""
        ...

    def fresh(self, rank: int, alpha: float) -> Adapter:
        """New factors for every layer that takes them: A drawn from the device's seed, B zero."""
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
        """Train from `start` and return the same state with other values of what was trained.

        trained: which tensors, by the names of `SharedState.tensors`. steps: None for `num_steps`. loss_term
        is added to the loss of each step, gradient_term to the gradients of the parameters that it names
        (their own gradients are in `.grad` when it is called).
        stream names the random stream of images, timesteps and noise, the same for the same (round, stream).
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
        """The gradient of the loss at `at` for each of `batches` mini-batches; nothing is trained.

        band: the part of the shared stage's timesteps that is drawn from, as shares from its cleanest (0) to
        its noisiest (1).
        """
        ...


@runtime_checkable
class ClientRule(Protocol):
    """The client half: pure but for the work that it orders."""

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """One round on the device; `memory` is empty in the first."""
        ...

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """The shared-stage model that the device itself would run: the global one, or one of its own."""
        ...
