"""The interface of a strategy: pure tensors in and out, nothing of Flower.

A strategy is a file in `strategies/` with a class `Strategy` that extends `Rule`; `strategy = "fedit"` in a
config means strategies/fedit.py. Its client half runs on every device, its server half beside the
aggregation. What is not overridden is plain training and, in `download`, sending the state as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fedaigc.diffusion.adapters.stages import Adapter as Adapter
from fedaigc.diffusion.adapters.stages import SharedState as SharedState
from fedaigc.errors import UserError as UserError
from fedaigc.rng import rng as rng
from fedaigc.strategy.accountant import Release as Release
from fedaigc.strategy.client_rule import LocalResult as LocalResult
from fedaigc.strategy.client_rule import LocalWork as LocalWork
from fedaigc.strategy.client_rule import Parameters as Parameters
from fedaigc.strategy.client_rule import Received as Received
from fedaigc.strategy.low_rank import ProductSum as ProductSum
from fedaigc.strategy.low_rank import added as added
from fedaigc.strategy.low_rank import padded as padded
from fedaigc.strategy.low_rank import scaled as scaled
from fedaigc.strategy.low_rank import singular_factors as singular_factors
from fedaigc.strategy.low_rank import times as times
from fedaigc.strategy.low_rank import truncated as truncated

Weighting = Literal["examples", "uniform"]
WEIGHTINGS: tuple[Weighting, ...] = ("examples", "uniform")


@dataclass(frozen=True)
class Traits:
    """What a strategy declares; the contract tests hold it to its word.

    keeps: what a device keeps of its model: the personal stage ("stage"), some layers of the shared stage
    too ("blocks"), or one factor of each layer ("factor"). edge: an edge server can run the shared stage with
    the global state; False: only a device can. averaging: equal updates are a fixed point, and one client is
    the identity. exact: the effective weight moves by sum_k p_k s_k B_k A_k. stateless: neither half
    remembers anything between rounds beside the shared state. any_rank: clients may have different ranks.
    personal: a device has a shared-stage model of its own. full_weights: `initial` gets a zero residual of
    every linear and convolutional layer too, to be trained in place of factors. residual: the shared state
    may have a residual; devices refuse one from a strategy that does not declare it.
    """

    keeps: Literal["stage", "blocks", "factor"] = "stage"
    edge: bool = True
    averaging: bool = True
    exact: bool = False
    stateless: bool = True
    any_rank: bool = False
    personal: bool = False
    full_weights: bool = False
    residual: bool = False


@dataclass(frozen=True, eq=False)
class Update:
    """What one client sent after a round, checked.

    Float32 tensors by name, the number of examples n_k that it counts for (1 for every client where the
    rule's weighting is "uniform"), its local steps, the rank of its factors, and coarse metrics.
    """

    client: int
    num_examples: int
    num_steps: int
    tensors: Mapping[str, Tensor]
    rank: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)

    def lora(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A and B by layer, where both were sent."""
        layers = (name.removesuffix(".lora_A") for name in self.tensors if name.endswith(".lora_A"))
        return {
            layer: (self.tensors[f"{layer}.lora_A"], self.tensors[f"{layer}.lora_B"])
            for layer in layers
            if f"{layer}.lora_B" in self.tensors
        }


class Rule(ABC):
    """Both halves of a strategy.

    On the server, the run sets `seed`, for rules that draw (use `rng(self.seed, "name", round)` and nothing
    global), `num_clients`, and `clients_per_round`, that many or fewer of which answer; 0 where not known.

    equals: the strategy without options that this one is by construction, with its options as they are; a
    table shows one of the two. weighing_metrics: metrics of an update that it weighs clients by, beside n_k;
    the run bounds them. released: what the last `finish` tells of one client, of a rule that adds noise for
    differential privacy; None of any other. clips_updates: the rule bounds each update itself, so that the
    run refuses none by the norms of others: whether a client counts must then not depend on other clients.

    weighting: what the server half weighs clients by: "examples" (n_k) or "uniform" (all alike, for which the
    run gives it updates with n_k = 1). The option `weighting` sets it; a rule that weighs by something else
    has None, and no such option. robust: `withstand` is told how many
    of a round's clients may be attackers.
    """

    traits: Traits
    equals = ""
    released: Release | None = None
    weighing_metrics: tuple[str, ...] = ()
    clips_updates = False
    weighting: Weighting | None = "examples"
    robust = False
    seed = 0
    num_clients = 0
    clients_per_round = 0

    # declarations

    def withstand(self, attackers: int) -> None:
        """Set how many of a round's clients may be attackers; called on robust rules alone.

        Raises UserError when the clients of a round are too few.
        """
        raise NotImplementedError(f"{type(self).__module__} is robust, and does not say how")

    def trains(self, name: str, round: int) -> bool:
        """Whether a client trains the tensor `name` (of `SharedState.tensors`) in this round."""
        return name.endswith((".lora_A", ".lora_B"))

    def sends(self, name: str, round: int) -> bool:
        """Whether a client sends it; what it trains, unless said otherwise."""
        return self.trains(name, round)

    def expected(self, received: Received, rank: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of an update's tensors from a client that has `received` and claims `rank`.

        Whatever differs is refused before `add`. Raises ValueError for a rank that cannot be.
        """
        if rank != received.shared.rank:
            raise ValueError(f"rank {rank}, expected {received.shared.rank}")
        return {
            name: tuple(tensor.shape)
            for name, tensor in received.shared.tensors().items()
            if self.sends(name, received.round)
        }

    # client half

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Plain training of what the rule trains, from the state that was received."""
        trained = work.train(received.shared, trained=lambda name: self.trains(name, received.round))
        return LocalResult(self.sent(trained, received.round))

    def sent(self, state: SharedState, round: int) -> dict[str, Tensor]:
        """The tensors of `state` that are sent."""
        return {name: tensor for name, tensor in state.tensors().items() if self.sends(name, round)}

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """The shared-stage model that a device would run by itself; the global one unless `personal`."""
        return received.shared

    # server half

    def initial(self, shared: SharedState) -> SharedState:
        """The state before the first round, made from fresh factors and no residual."""
        return shared

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """What a client of this rank receives at the start of a round."""
        if rank != shared.rank:
            raise ValueError(f"{type(self).__module__} needs equal ranks: {rank} asked, {shared.rank} there")
        return Received(shared, round)

    @abstractmethod
    def start(self, shared: SharedState, round: int) -> None:
        """A round begins from `shared`."""

    @abstractmethod
    def add(self, update: Update) -> None:
        """Take one client's validated update; called in client order. It may be kept or written to."""

    @abstractmethod
    def finish(self) -> SharedState:
        """The state after the round; the state it began from when there was no update."""

    def state(self) -> dict[str, Tensor]:
        """What the server half remembers between rounds, for checkpoints."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave, in place of all that was remembered."""
        if state:
            raise ValueError(f"{type(self).__module__} keeps no state, a checkpoint has {sorted(state)}")


def in_parts(name: str, parts: str) -> bool:
    """Whether a layer or tensor lies in one of the parts of the network that `parts` lists.

    E.g. "up_blocks attentions" or "down_blocks.1": whole words of the name, between its dots.
    """
    return any(f".{part}." in f".{name}." for part in parts.split())


class AveragingRule(Rule):
    """The server half that many rules share: what was sent is averaged and takes its place in the state.

        x = sum_k p_k x_k,   p_k = n_k / sum n

    A tensor that nobody sends keeps its value.
    """

    def start(self, shared: SharedState, round: int) -> None:
        """Empty sums."""
        self._shared = shared
        self._mean = WeightedMean()

    def add(self, update: Update) -> None:
        """sum n_k x_k."""
        self._mean.add(update.num_examples, update.tensors)

    def finish(self) -> SharedState:
        """The sums over sum n."""
        return self._shared.with_tensors(self._mean.finish())


class WeightedMean:
    """sum_k w_k x_k / sum_k w_k over named tensors, folded in place: one model in memory, not K."""

    def __init__(self) -> None:
        self.total = 0.0
        self._sums: dict[str, Tensor] = {}

    def add(self, weight: float, tensors: Mapping[str, Tensor]) -> None:
        """Fold one client's float32 tensors in; ValueError for other names or shapes than the first's."""
        if weight <= 0:
            raise ValueError(f"a weight of {weight}: expected more than 0")
        if not self.total:
            self._sums = {name: torch.mul(tensor, weight) for name, tensor in tensors.items()}
        else:
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            if shapes != {name: tensor.shape for name, tensor in self._sums.items()}:
                raise ValueError("tensors of other names or shapes than the first client's")
            for name, tensor in tensors.items():
                self._sums[name].add_(tensor, alpha=weight)
        self.total += weight

    def finish(self) -> dict[str, Tensor]:
        """The means; empty when nothing was added. The sums are given away."""
        sums, self._sums = self._sums, {}
        return {name: tensor.div_(self.total) for name, tensor in sums.items()}
