"""The interface of a strategy: pure, from tensors to tensors, without Flower.

A strategy is a file in `strategies/` with a class `Strategy` that extends `Rule`; `strategy = "fedit"` in a
configuration selects strategies/fedit.py. Its client half runs on every device, its server half with the
aggregation. The defaults are plain training and, in `download`, sending the state unchanged. "Rule" always
means both halves. `strategies/README.md` shows how to write one, from the docstring to the tests.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
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
from fedaigc.strategy.past_round import PastRound as PastRound

Weighting = Literal["examples", "uniform"]
WEIGHTINGS: tuple[Weighting, ...] = ("examples", "uniform")


@dataclass(frozen=True)
class Traits:
    """What a strategy declares; the contract tests verify it.

    Attributes:
        keeps: What a device keeps of its model: the personal stage ("stage"), also some layers of the shared
            stage ("blocks"), or one factor of each layer ("factor").
        edge: Whether an edge server can run the shared stage with the global state; otherwise only a device
            can.
        averaging: Equal updates are a fixed point, and one client is the identity.
        exact: The effective weight moves by sum_k p_k s_k B_k A_k.
        stateless: Neither half keeps anything between rounds except the shared state.
        any_rank: Clients may have different ranks.
        personal: A device has a shared-stage model of its own.
        full_weights: `initial` also gets a zero residual of every linear and convolutional layer, to be
            trained in place of factors.
        residual: The shared state may have a residual. Devices refuse one from a strategy that does not
            declare it.
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
    """What one client sends after a round: made by the device, and again by `wire.read_update`, which validates it.

    Attributes:
        client: Client number.
        num_examples: n_k, the number of examples that the update counts for; 1 for every client if the rule's
            weighting is "uniform".
        num_steps: Local steps of the client.
        tensors: Float32 tensors by name.
        rank: Rank of the factors.
        metrics: Coarse metrics.
    """

    client: int
    num_examples: int
    num_steps: int
    tensors: Mapping[str, Tensor] = field(repr=False)
    rank: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)

    def lora(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return A and B by layer, for layers of which both were sent."""
        layers = (name.removesuffix(".lora_A") for name in self.tensors if name.endswith(".lora_A"))
        return {
            layer: (self.tensors[f"{layer}.lora_A"], self.tensors[f"{layer}.lora_B"])
            for layer in layers
            if f"{layer}.lora_B" in self.tensors
        }


class Rule(ABC):
    """Both halves of a strategy.

    On the server, the run sets `seed`, `num_clients` and `clients_per_round`. Rules that draw use
    `rng(self.seed, "name", round)` and nothing global.

    Attributes:
        traits: What the strategy declares.
        equals: Strategy without options that this one equals by construction, with its current options. A
            table shows one of the two.
        released: For a rule that adds noise for differential privacy, what the last `finish` reveals of one
            client; otherwise None.
        weighing_metrics: Metrics of an update by which the rule weighs clients, in addition to n_k. The run
            bounds them.
        clips_updates: Whether the rule bounds each update itself, so that the run refuses none by the norms
            of others. Whether a client counts must then not depend on other clients.
        weighting: What the server half weighs clients by: "examples" (n_k), or "uniform" (all alike; the run
            then passes updates with n_k = 1). The option `weighting` sets it. None for a rule that weighs by
            something else and has no such option.
        robust: Whether `withstand` is called with the number of possible attackers in a round.
        seed: Seed of the run, for rules that draw.
        num_clients: Number of clients in the federation; 0 if unknown.
        clients_per_round: Number of clients per round; that many or fewer answer. 0 if unknown.
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
        """Set how many of a round's clients may be attackers; called on robust rules only.

        Raises:
            UserError: If a round has too few clients.
        """
        raise NotImplementedError(f"{type(self).__module__} is robust, but does not implement `withstand`")

    def trains(self, name: str, round: int) -> bool:
        """Return whether a client trains the tensor `name` (of `SharedState.tensors`) in this round."""
        return name.endswith((".lora_A", ".lora_B"))

    def sends(self, name: str, round: int) -> bool:
        """Return whether a client sends the tensor `name` in this round; by default, what it trains."""
        return self.trains(name, round)

    def expected(self, received: Received, rank: int) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of an update's tensors; an update that differs is refused before `add`.

        Args:
            received: What the client received.
            rank: Rank that the client claims.

        Raises:
            ValueError: If the rank is not possible.
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
        """Run plain training of what the rule trains, from the received state."""
        trained = work.train(received.shared, trained=lambda name: self.trains(name, received.round))
        return LocalResult(self.sent(trained, received.round))

    def sent(self, state: SharedState, round: int) -> dict[str, Tensor]:
        """Return the tensors of `state` that are sent."""
        return {name: tensor for name, tensor in state.tensors().items() if self.sends(name, round)}

    def own(self, received: Received, memory: Mapping[str, Tensor]) -> SharedState:
        """Return the shared-stage model that a device would run itself; the global one unless `personal`."""
        return received.shared

    # server half

    def sample(
        self, round: int, available: Sequence[int], rng: np.random.Generator, history: Sequence[PastRound]
    ) -> Sequence[int]:
        """Choose the clients of a round; by default `clients_per_round` of them, uniformly without replacement.

        Args:
            round: Number of the round, from 1.
            available: Clients that take part in the run, sorted.
            rng: Generator of this round, which the run's seed determines.
            history: The completed rounds, oldest first, those before a resumed run included.

        Returns:
            At least one and at most `clients_per_round` of `available`, each once, in any order.
        """
        if not 0 < self.clients_per_round < len(available):
            return available
        return [int(client) for client in rng.choice(available, self.clients_per_round, replace=False)]

    def initial(self, shared: SharedState) -> SharedState:
        """Return the state before the first round, from one with fresh factors and no residual."""
        return shared

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """Return what a client of this rank receives at the start of a round.

        Raises:
            ValueError: If the rule needs equal ranks and the rank differs.
        """
        if rank != shared.rank:
            raise ValueError(
                f"{type(self).__module__} needs equal ranks: the client has {rank}, the shared state {shared.rank}"
            )
        return Received(shared, round)

    @abstractmethod
    def start(self, shared: SharedState, round: int) -> None:
        """Begin a round from `shared`."""

    @abstractmethod
    def add(self, update: Update) -> None:
        """Take one client's validated update, which may be kept or written to; called in client order."""

    @abstractmethod
    def finish(self) -> SharedState:
        """Return the state after the round; without any update, the state that it began from."""

    def edge_weight(self, update: Update) -> float | None:
        """Return the weight of an update in the mean of its edge, or None if edges forward the updates of this rule.

        A rule may return a weight if everything that `add` accumulates is sum_k c_k f(x_k) with f affine, and c_k is
        this weight, which follows from the counts of the update alone: see `strategy.edge_sums`.

        Args:
            update: The update with the number of examples that it counts for; its tensors do not matter.
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """Return what the server half remembers between rounds, for checkpoints."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, in place of everything remembered.

        Raises:
            ValueError: If the rule keeps no state, and `state` is not empty.
        """
        if state:
            raise ValueError(
                f"{type(self).__module__} keeps no state, but the checkpoint has {sorted(state)}"
            )


def in_parts(name: str, parts: str) -> bool:
    """Return whether a layer or tensor lies in one of the parts of the network that `parts` lists.

    Args:
        name: Name of the layer or tensor.
        parts: E.g. "up_blocks attentions" or "down_blocks.1": whole words of the name, between its dots.
    """
    return any(f".{part}." in f".{name}." for part in parts.split())


class AveragingRule(Rule):
    """The server half that many rules share: what was sent is averaged and replaces its part of the state.

        x = sum_k p_k x_k,   p_k = n_k / sum n

    A tensor that no client sends keeps its value.
    """

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sums."""
        self._shared = shared
        self._mean = WeightedMean()

    def add(self, update: Update) -> None:
        """Add n_k x_k to the sums."""
        self._mean.add(update.num_examples, update.tensors)

    def finish(self) -> SharedState:
        """Return the state with the sums divided by sum n."""
        return self._shared.with_tensors(self._mean.finish())

    def edge_weight(self, update: Update) -> float | None:
        """Return n_k, or None if a strategy has an `add` of its own, which may accumulate anything."""
        return update.num_examples if type(self).add is AveragingRule.add else None


class WeightedMean:
    """sum_k w_k x_k / sum_k w_k over named tensors, accumulated in place: one model in memory, not K."""

    def __init__(self) -> None:
        self.total = 0.0
        self._sums: dict[str, Tensor] = {}

    def add(self, weight: float, tensors: Mapping[str, Tensor]) -> None:
        """Add one client's float32 tensors.

        Raises:
            ValueError: If the weight is not above 0, or names or shapes differ from the first client's.
        """
        if weight <= 0:
            raise ValueError(f"a weight of {weight}: expected more than 0")
        if not self.total:
            self._sums = {name: torch.mul(tensor, weight) for name, tensor in tensors.items()}
        else:
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            if shapes != {name: tensor.shape for name, tensor in self._sums.items()}:
                raise ValueError("the names or shapes of the tensors differ from those of the first client")
            for name, tensor in tensors.items():
                self._sums[name].add_(tensor, alpha=weight)
        self.total += weight

    def finish(self) -> dict[str, Tensor]:
        """Return the means, in the memory of the sums; empty if nothing was added."""
        sums, self._sums = self._sums, {}
        return {name: tensor.div_(self.total) for name, tensor in sums.items()}
