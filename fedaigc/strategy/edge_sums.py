"""What an edge makes of the updates of its clients: one mean, or each update as it is.

An edge aggregates its clients before the server does (`federation.server.edges`). It may send one mean in place of
its clients' tensors if a rule only adds them up, that is, if everything that `Rule.add` accumulates is

    sum_k c_k f(x_k),   f affine

with weights c_k that follow from the counts of an update (n_k and tau_k) alone. Edge e then sends

    x_e = sum_{k in e} c_k x_k / sum_{k in e} c_k

and the counts of its clients. The server adds x_e once for each of these clients, with that client's counts, and
obtains the same sums up to rounding:

    sum_{k in e} c_k f(x_e) = sum_{k in e} c_k f(x_k)

This holds for every rule that averages what it receives, whatever `finish` makes of the means (a decomposition, a
server optimizer). It does not hold where `add` multiplies factors of one client with each other, where a weight
follows from the tensors, or where clients are compared with each other. Of these rules an edge forwards every update
unchanged, and the server computes what it computes without edges, bit for bit.

`Rule.edge_weight` returns c_k. This module adds the built-in rules whose own `add` is affine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from fedaigc.strategy import builtin
from fedaigc.strategy.flower.rule import ROBUST_STRATEGIES, FlowerRule
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Rule, Update
from fedaigc.strategy.sources import strategy_names

# built-in rules with an affine `add` of their own; their files do not say so, because a strategy's fingerprint is that
# of its file
_AFFINE: Mapping[str, Callable[[Update], float]] = {
    # adds n_k (y_k - x) / tau_k and n_k tau_k
    "fednova": lambda update: update.num_examples / update.num_steps,
    # adds n_k y_k and n_k (c_k' - c_k), and counts the clients
    "scaffold": lambda update: update.num_examples,
    # adds nothing
    "local_only": lambda update: update.num_examples,
}
_WHY = {
    "fedex_lora": "the products B A of the clients are added",
    "flexlora": "the products B A of the clients are added",
    "flora": "the factors of the clients are stacked",
    "hetlora": "the weight of a client is the norm of its product B A",
    "interval_fisher": "the weights of a client follow from its table",
    "lora_fair": "the products B A of the clients are added",
    "qfedavg": "the weight of a client follows from its loss and the norm of its change",
}
_ROBUST = "the clients are compared with each other"
_OTHER = "its `add` is its own; `edge_weight` can say that it is affine"


def edge_weight(rule: Rule, update: Update) -> float | None:
    """Return the weight c_k of an update in the mean of its edge; None if the edge forwards the updates of this rule.

    Args:
        rule: The server half of a strategy.
        update: The update with the number of examples that it counts for.
    """
    if isinstance(rule, FlowerRule):
        # Flower weighs the clients by their examples, and each of these strategies starts from the mean; with
        # differential privacy every update is clipped or counted by itself
        averages = rule._kind.mean and rule._privacy is None
        return update.num_examples if averages else None
    room, _, name = type(rule).__module__.rpartition(".")
    if room == builtin.__name__ and name in _AFFINE:
        return _AFFINE[name](update)
    return rule.edge_weight(update)


@dataclass(frozen=True)
class EdgeHalf:
    """What an edge sends for a strategy.

    Attributes:
        strategy: Name of the strategy.
        weight: c_k in the mean of an edge, as text; empty if the edge forwards every update.
        why: Why it forwards; empty if it sends a mean.
    """

    strategy: str
    weight: str
    why: str

    @property
    def sends(self) -> str:
        """What crosses the backhaul: "a mean by n_k" or "each update"."""
        return f"a mean by {self.weight}" if self.weight else "each update"


def edge_half(name: str) -> EdgeHalf:
    """Return what an edge sends for a strategy with its default options.

    Raises:
        UserError: As `load_strategy`.
    """
    # 3 examples and 2 steps tell the weights from each other
    weight = edge_weight(load_strategy(name), Update(0, num_examples=3, num_steps=2, tensors={}))
    if weight is not None:
        told = {3.0: "n_k", 1.5: "n_k / tau_k"}.get(float(weight), "a weight of its own")
        return EdgeHalf(name, told, "")
    why = _ROBUST if name in ROBUST_STRATEGIES else _WHY.get(name, _OTHER)
    return EdgeHalf(name, "", why)


def edge_halves() -> list[EdgeHalf]:
    """Return what an edge sends for every strategy, by name; with `dp` one of Flower's forwards each update."""
    return [edge_half(name) for name in strategy_names()]


def stand_in(counts: Update, mean: Mapping[str, Tensor]) -> Update:
    """Return the mean of an edge in place of one client's tensors.

    Args:
        counts: The client's update without tensors.
        mean: The mean of its edge, which is copied: the rule may write to it.
    """
    return replace(counts, tensors={name: tensor.clone() for name, tensor in mean.items()})
