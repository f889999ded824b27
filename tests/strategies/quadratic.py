"""Clients without a network: local steps on a quadratic, which run both halves of a strategy in milliseconds.

    F_k = 1/2 sum_layers |R + s B A - T_k|^2,   plain SGD, with noise on every gradient

The gradients of all factors and residuals are exact (for B = 0, A has no gradient), and `loss_term`,
`gradient_term` and `trained` have the same effect as in the real local work.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedaigc.diffusion.adapters.stages import Adapter, SharedState
from fedaigc.rng import rng
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import LocalResult, Parameters, Received, Rule, Update

Shapes = Mapping[str, tuple[int, ...]]
# linear layers, of which the square one cannot tell a transposed product by its shape, and a convolution
SHAPES: Shapes = {
    "down_blocks.0.attentions.0.to_q": (6, 6),
    "mid_block.attentions.0.to_k": (9, 5),
    "up_blocks.0.attentions.0.to_v": (7, 6),
    "up_blocks.0.resnets.0.conv1": (6, 3, 3, 3),
}


def random_state(seed: int, rank: int, alpha: float | None = None, shapes: Shapes = SHAPES) -> SharedState:
    """Return factors as during training, with a nonzero B."""
    noise = rng(seed, "state")
    lora = {}
    for layer, shape in sorted(shapes.items()):
        down = torch.randn((rank, *shape[1:]), generator=noise) / math.prod(shape[1:]) ** 0.5
        up = torch.randn((shape[0], rank, *[1] * (len(shape) - 2)), generator=noise) / 2
        lora[layer] = (down, up)
    return SharedState("base", lora, rank, 2.0 * rank if alpha is None else alpha, boundary_log_snr=0.5)


def effective(state: SharedState) -> dict[str, Tensor]:
    """Return R + s B A of every layer that has either, in float64 with explicit products."""
    found: dict[str, Tensor] = {}
    for layer, residual in state.residual.items():
        found[layer] = residual.double() if isinstance(residual, Tensor) else product(*residual)
    for layer, (down, up) in state.lora.items():
        moved = state.alpha / state.rank * product(down, up)
        found[layer] = found[layer] + moved if layer in found else moved
    return found


def product(down: Tensor, up: Tensor) -> Tensor:
    """Return B A in the shape of the weight. The index of the inputs remains last."""
    return torch.einsum("r...,or->o...", down.double(), up.double().flatten(1))


@dataclass(eq=False)
class QuadraticWork:
    """The `LocalWork` of one client in one round."""

    shapes: Shapes
    num_steps: int
    num_examples: int
    seed: int
    round: int
    learning_rate: float = 0.1
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        noise = rng(self.seed, "target")
        self._targets = {
            layer: torch.randn(shape, generator=noise) for layer, shape in sorted(self.shapes.items())
        }

    def fresh(self, rank: int, alpha: float) -> Adapter:
        state = random_state(self.seed, rank, alpha, self.shapes)
        lora = {layer: (down, torch.zeros_like(up)) for layer, (down, up) in state.lora.items()}
        return Adapter(lora, rank, alpha)

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
        noise = rng(self.seed, "train", stream, self.round)
        values = {name: tensor.clone() for name, tensor in start.tensors().items()}
        parameters = {name: tensor.requires_grad_() for name, tensor in values.items() if trained(name)}
        assert parameters, "nothing to train"
        for _ in range(self.num_steps if steps is None else steps):
            loss = self._loss(start, values)
            extra = loss_term(parameters) if loss_term is not None else None
            for parameter in parameters.values():
                parameter.grad = None
            (loss if extra is None else loss + extra).backward()
            for parameter in parameters.values():
                parameter.grad = _noisy(parameter.grad, parameter, noise)
            for name, term in (gradient_term(parameters) if gradient_term is not None else {}).items():
                parameters[name].grad = parameters[name].grad + term  # type: ignore[operator]
            # clipped: whatever the start, steps stay small
            torch.nn.utils.clip_grad_norm_(parameters.values(), 2.0)
            with torch.no_grad():
                for parameter in parameters.values():
                    parameter -= self.learning_rate * parameter.grad  # type: ignore[operator]
            self.losses.append(float(loss.detach()))
        return SharedState.from_tensors(start.header(), {n: t.detach() for n, t in values.items()})

    def gradients(
        self,
        at: SharedState,
        *,
        wanted: Callable[[str], bool],
        batches: int,
        band: tuple[float, float] = (0.0, 1.0),
        stream: str = "gradients",
    ) -> Iterator[Parameters]:
        noise = rng(self.seed, "train", stream, self.round, str(band))
        for _ in range(batches):
            values = {name: tensor.clone() for name, tensor in at.tensors().items()}
            parameters = {name: tensor.requires_grad_() for name, tensor in values.items() if wanted(name)}
            self._loss(at, values).backward()
            yield {name: _noisy(value.grad, value, noise) for name, value in parameters.items()}

    def _loss(self, start: SharedState, values: Mapping[str, Tensor]) -> Tensor:
        weights = effective(SharedState.from_tensors(start.header(), values))
        return sum(
            (0.5 * ((weights[layer] - self._targets[layer]) ** 2).sum() for layer in sorted(weights)),
            torch.zeros(()),
        )


def _noisy(gradient: Tensor | None, parameter: Tensor, noise: torch.Generator) -> Tensor:
    found = torch.zeros_like(parameter) if gradient is None else gradient
    return found + 0.1 * torch.randn(parameter.shape, generator=noise)


@dataclass(frozen=True)
class Client:
    """A client with its sizes. A `rank` of None is that of the federation."""

    client: int
    num_examples: int
    num_steps: int
    rank: int | None = None


CLIENTS = (Client(0, 3, 2), Client(1, 5, 3), Client(4, 2, 1), Client(7, 11, 4), Client(9, 7, 2))


@dataclass(eq=False)
class Federation:
    """A strategy's server half, and a client half and a memory for each client, as in a run."""

    name: str
    clients: Sequence[Client] = CLIENTS
    rank: int = 4
    seed: int = 0
    options: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=lambda: SHAPES)

    def __post_init__(self) -> None:
        self.rule = self.server()
        self.shared = self.rule.initial(random_state(self.seed, self.rank, shapes=self.shapes))
        self.memories: dict[int, Mapping[str, Tensor]] = {client.client: {} for client in self.clients}
        self.round = 1

    def server(self) -> Rule:
        """Return a server half as a run configures it."""
        rule = load_strategy(self.name, self.options)
        rule.seed, rule.num_clients, rule.clients_per_round = self.seed, len(self.clients), len(self.clients)
        return rule

    def received(self, client: Client, rank: int | None = None) -> Received:
        """Return what the client receives in this round."""
        return self.rule.download(self.shared, client.client, rank or client.rank or self.rank, self.round)

    def result(self, client: Client, received: Received) -> tuple[LocalResult, Update]:
        """Run the client half, and return its update as the server reads it."""
        work = QuadraticWork(
            self.shapes,
            client.num_steps,
            client.num_examples,
            1000 * self.seed + client.client,
            self.round,
        )
        memory = self.memories[client.client]
        result = load_strategy(self.name, self.options).client(work, received, memory)
        rank = received.shared.rank if result.rank is None else result.rank
        expected = self.rule.expected(received, rank)
        found = {name: tuple(tensor.shape) for name, tensor in result.upload.items()}
        assert list(found.items()) == list(expected.items())
        metrics = {"shared_loss": sum(work.losses) / len(work.losses)}
        tensors = {name: tensor.clone() for name, tensor in result.upload.items()}
        return result, Update(client.client, client.num_examples, client.num_steps, tensors, rank, metrics)

    def updates(self) -> list[Update]:
        """Run one round of all clients, and update their memories."""
        found = []
        for client in self.clients:
            result, update = self.result(client, self.received(client))
            self.memories[client.client] = result.memory
            found.append(update)
        return found

    def fold(self, updates: Sequence[Update], rule: Rule | None = None) -> SharedState:
        """Run the server half on copies of these updates. The federation remains in its round."""
        rule = rule or self.rule
        rule.start(self.shared, self.round)
        for update in updates:
            rule.add(copy_of(update))
        return rule.finish()

    def play(self, rounds: int = 1) -> None:
        """Run whole rounds."""
        for _ in range(rounds):
            self.shared = self.fold(self.updates())
            self.round += 1

    def own(self) -> list[SharedState]:
        """Return the model that each client's device would run now."""
        return [
            load_strategy(self.name, self.options).own(self.received(client), self.memories[client.client])
            for client in self.clients
        ]


def copy_of(update: Update) -> Update:
    return replace(update, tensors={name: tensor.clone() for name, tensor in update.tensors.items()})


def client_state(received: Received, update: Update) -> SharedState:
    """Return the model that a client ended with, as far as it was sent."""
    shared = received.shared
    # tensors beside the state may bear the names of its factors
    factors = {layer: pair for layer, pair in update.lora().items() if layer in shared.lora}
    if factors:
        alpha = shared.alpha / shared.rank * update.rank
        shared = replace(shared, lora={**shared.lora, **factors}, rank=update.rank, alpha=alpha)
    return shared.with_tensors({n: t for n, t in update.tensors.items() if n in shared.tensors()})


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return the largest difference over all layers. A layer that one of the two lacks counts as zero."""
    found = [0.0]
    for layer in first.keys() | second.keys():
        a, b = first.get(layer), second.get(layer)
        difference = b if a is None else a if b is None else a - b
        assert difference is not None
        found.append(float(difference.abs().max()))
    return max(found)
