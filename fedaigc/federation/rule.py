"""The interface of a strategy: pure tensors in and out, nothing of Flower.

A strategy is a file in `strategies/` with a class `Strategy` that follows `Rule`; `strategy = "fedit"` in a
config means strategies/fedit.py. Its client half runs on every device, its server half beside the
aggregation.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from fedaigc.diffusion.adapters import Adapter as Adapter
from fedaigc.diffusion.adapters import SharedState as SharedState
from fedaigc.errors import UserError


@dataclass(frozen=True, eq=False)
class Update:
    """What one client sends after a round.

    Float32 tensors by name, n_k, its local steps, and coarse metrics.
    """

    partition: int
    num_examples: int
    num_steps: int
    tensors: Mapping[str, Tensor]
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Rule(Protocol):
    """Both halves of a strategy. A client calls the first four in a round, the server the others."""

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

    def start(self, shared: SharedState) -> None:
        """A new round begins from `shared`."""
        ...

    def add(self, update: Update) -> None:
        """Take one client's validated update; called in partition order."""
        ...

    def finish(self) -> SharedState:
        """The state after the round; the state it began from when there was no update."""
        ...

    def download(self, shared: SharedState, partition: int) -> SharedState:
        """What this client receives at the start of a round."""
        ...


def load_rule(name: str) -> Rule:
    """A fresh instance of the strategy `name`; UserError, with the nearest name, when there is none."""
    names = strategy_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(f"strategy {name!r} is unknown: expected one of {', '.join(names)}{hint}")
    rule: Rule = importlib.import_module(f"strategies.{name}").Strategy()
    return rule


def strategy_names() -> list[str]:
    """The strategies that are installed, sorted."""
    # by name, so that the library does not depend on the folder that users edit
    package = importlib.import_module("strategies")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))
