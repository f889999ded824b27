"""Flower's own strategies as rules, by composition: their classes are used, not rewritten.

A strategy sees float32 arrays under their tensors' names, one message per client, in client order. It is
driven through `configure_train` and `aggregate_train` as in Flower's own loop; our loop has drawn the clients
before. The client half is plain training, with FedProx's term for that strategy.

Where Flower's defaults make one strategy equal to another, ours differ: FedAvgM has momentum, FedProx a mu
above 0, and Multi-Krum selects two. Two strategies follow their papers by default, and Flower by an option:

- Multi-Krum weighs the selected updates alike (Blanchard et al. 2017, arXiv:1703.02757). With weighting =
  "examples" it weighs them by examples like Flower: an attacker who is selected then chooses its own weight.
- Bulyan selects by Krum one update after the other, among those that are left (El Mhamdi et al. 2018,
  arXiv:1802.07927). With iterated = false it selects those of the lowest scores at once, like Flower.

These rules are still equal: FedAvg on factors is FedIT; the server half of FedProx is FedAvg's; Bulyan with
no malicious nodes, and FedTrimmedAvg while beta K < 1, are the unweighted mean.

Krum, Multi-Krum, Bulyan, FedTrimmedAvg and FedMedian withstand some of a round's clients. `rounds.attackers`
sets how many, unless an option does (`num_malicious_nodes`, `beta`). A round with fewer updates than that
number needs changes nothing.

Flower's FedAdam corrects the bias with the exponent round + 1; Reddi et al. have no bias correction at all.
"""

import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from torch import Tensor

from fedaigc.errors import UserError
from fedaigc.strategy.accountant import check_delta
from fedaigc.strategy.flower.iterated_krum import iterated_krum
from fedaigc.strategy.flower.privacy import (
    NO_NODES,
    NORM_BIT,
    OWN_LOOP,
    PRIVACY_OPTIONS,
    WEIGHT,
    Privacy,
    privacy_of,
)
from fedaigc.strategy.rule import (
    LocalResult,
    LocalWork,
    Parameters,
    Received,
    Rule,
    SharedState,
    Traits,
    Update,
    Weighting,
)
from fedaigc.validation import nearest

Options = Mapping[str, float | int | bool | str]
_LOSS = "shared_loss"
_STATEFUL = Traits(averaging=False, stateless=False)
# attributes that Flower's strategies keep between rounds
_MEMORY = ("m_t", "v_t", "momentum_vector")
_ITERATED = "iterated"
_POSITIVE = {"eta", "tau", "server_learning_rate", "client_learning_rate", "num_nodes_to_select"}
_BELOW_ONE = {"beta_1", "beta_2", "server_momentum"}


@dataclass(frozen=True)
class _Kind:
    """Flower's class, its options with our defaults, and its use.

    Attributes:
        strategy: Flower's class.
        options: Options with our defaults.
        traits: Declared traits.
        mean: Whether it starts from the clients' mean, so that a private mean can take its place.
        centred: Whether it compares distances. It is then given the clients' changes in place of their
            weights: Flower computes |x - y|^2 as |x|^2 + |y|^2 - 2 xy in float32, which would lose small
            changes of large weights.
        needed: (a, b) if f attackers need a f + b clients; None for a strategy that withstands none.
        weighting: See `Rule`.
    """

    strategy: type[Any]
    options: Mapping[str, float | int | bool]
    traits: Traits = field(default_factory=Traits)
    mean: bool = False
    centred: bool = False
    needed: tuple[int, int] | None = None
    weighting: Weighting | None = "examples"


_ADAPTIVE = {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3}
_KINDS = {
    "fedavg": _Kind(flower.FedAvg, {}, mean=True),
    "fedavgm": _Kind(
        flower.FedAvgM, {"server_learning_rate": 1.0, "server_momentum": 0.9}, _STATEFUL, mean=True
    ),
    "fedadam": _Kind(flower.FedAdam, _ADAPTIVE, _STATEFUL, mean=True),
    "fedyogi": _Kind(flower.FedYogi, _ADAPTIVE | {"eta": 0.01}, _STATEFUL, mean=True),
    "fedadagrad": _Kind(flower.FedAdagrad, {"eta": 0.1, "tau": 1e-3}, _STATEFUL, mean=True),
    "fedprox": _Kind(flower.FedProx, {"proximal_mu": 0.01}, mean=True),
    "fedmedian": _Kind(flower.FedMedian, {}, needed=(2, 1), weighting=None),
    "fedtrimmedavg": _Kind(flower.FedTrimmedAvg, {"beta": 0.2}, needed=(2, 1), weighting=None),
    "krum": _Kind(flower.Krum, {"num_malicious_nodes": 0}, centred=True, needed=(2, 3), weighting=None),
    "multikrum": _Kind(
        flower.MultiKrum,
        {"num_malicious_nodes": 0, "num_nodes_to_select": 2},
        centred=True,
        needed=(2, 3),
        weighting="uniform",
    ),
    # not averaging: fewer than 4 f + 3 clients change nothing
    "bulyan": _Kind(
        flower.Bulyan,
        {"num_malicious_nodes": 0, _ITERATED: True},
        Traits(averaging=False),
        centred=True,
        needed=(4, 3),
        weighting=None,
    ),
    "qfedavg": _Kind(
        flower.QFedAvg, {"client_learning_rate": 1e-3, "q": 0.1}, Traits(averaging=False), weighting=None
    ),
}
FLOWER_STRATEGIES = tuple(_KINDS)
ROBUST_STRATEGIES = tuple(name for name, kind in _KINDS.items() if kind.needed is not None)


def flower_options(name: str) -> dict[str, float | int | bool | str]:
    """Return the options of Flower's strategy `name` with our defaults, without those of privacy."""
    return dict(_KINDS[name].options)


def flower_rule(name: str, options: Options) -> Rule:
    """Return Flower's strategy of this name as a rule.

    Args:
        name: Name of the strategy.
        options: Its own options. For a strategy that starts from the clients' mean also `dp` and the options
            that belong to it, see `fedaigc.strategy.flower.privacy`.

    Raises:
        UserError: If an option is unknown (with the nearest name) or has an invalid value.
    """
    kind = _KINDS[name]
    known = sorted([*kind.options, *(PRIVACY_OPTIONS if kind.mean else ())])
    for option in options:
        if option not in known:
            raise UserError(
                f"Flower's {name} has no option {option!r}{nearest(option, known)}: "
                f"it has {', '.join(known) or 'none'}"
            )
    chosen = dict(kind.options)
    for option in kind.options.keys() & options.keys():
        chosen[option] = _value(name, option, options[option], kind.options[option])
    try:
        privacy = privacy_of({option: options[option] for option in options if option in PRIVACY_OPTIONS})
        return FlowerRule(kind, chosen, privacy, given=options.keys())
    except (TypeError, ValueError) as error:
        raise UserError(f"Flower's {name}: {error}") from None


def _value(name: str, option: str, value: Any, default: float | int | bool) -> float | int | bool:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"Flower's {name}: {option} is true or false, got {value!r}")
        return value
    kinds = (int,) if isinstance(default, int) else (int, float)
    fits = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not fits or (option in _POSITIVE and value == 0) or (option in _BELOW_ONE and value >= 1):
        kind = "whole number" if isinstance(default, int) else "number"
        least = "above 0" if option in _POSITIVE else "from 0"
        raise UserError(
            f"Flower's {name}: {option} is a {kind} {least}{' to below 1' if option in _BELOW_ONE else ''}, "
            f"got {value!r}"
        )
    return int(value) if isinstance(default, int) else float(value)


class FlowerRule(Rule):
    """One of Flower's strategies as the server half.

    The weights of FedAvg's mean are n_k; with privacy all clients count alike.

    Args:
        kind: Flower's class and its use.
        options: All options of the strategy.
        privacy: Differential privacy of the mean; None for none.
        given: Names of the options that are set explicitly.
    """

    def __init__(
        self,
        kind: _Kind,
        options: Mapping[str, float | int | bool],
        privacy: Privacy | None,
        given: Collection[str] = (),
    ) -> None:
        self._kind, self._options, self._privacy, self._given = kind, options, privacy, frozenset(given)
        self._attackers = 0
        # the loss that clients report, which is coarse and taken at the weights of their local steps
        keys: dict[str, Any] = {"train_loss_key": _LOSS} if kind.strategy is flower.QFedAvg else {}
        if options.get(_ITERATED):
            keys["selection_rule"] = iterated_krum
        numbers = {name: value for name, value in options.items() if name != _ITERATED}
        self._strategy = kind.strategy(**numbers, **keys, **OWN_LOOP)
        self.weighing_metrics = (_LOSS,) if keys else ()
        self.clips_updates = privacy is not None and privacy.server_side
        self.traits, self.weighting = kind.traits, kind.weighting if privacy is None else None
        self.robust = kind.needed is not None
        if privacy is None and (kind.strategy is flower.FedAvg or options.get("proximal_mu") == 0):
            self.equals = "fedit"
        if privacy is not None:
            kept = kind.traits.stateless and not privacy.adaptive
            self.traits = replace(kind.traits, averaging=False, stateless=kept)

    def withstand(self, attackers: int) -> None:
        """Set how many of a round's clients may be attackers, unless an option sets it.

        Raises:
            UserError: If a round has too few clients, or fewer honest ones than are selected.
        """
        if self._given & {"num_malicious_nodes", "beta"}:
            return
        selected = int(self._options.get("num_nodes_to_select", 1))
        least = max(self._least(attackers), attackers + selected)
        if self.clients_per_round < least:
            raise UserError(
                f"rounds.attackers is {attackers}, for which {self._kind.strategy.__name__} needs {least} "
                f"clients a round, there are {self.clients_per_round}: give more clients or fewer attackers"
            )
        self._attackers = attackers
        if hasattr(self._strategy, "num_malicious_nodes"):
            self._strategy.num_malicious_nodes = attackers

    def _least(self, attackers: int) -> int:
        """Return how many updates a round must have."""
        slope, base = self._kind.needed or (0, 0)
        return slope * attackers + base

    def expected(self, received: Received, rank: int) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of an update, with one bit (clipped or not) if clients adapt the norm."""
        shapes = super().expected(received, rank)
        return shapes if self._privacy is None else self._privacy.expected(shapes)

    def client(self, work: LocalWork, received: Received, memory: Mapping[str, Tensor]) -> LocalResult:
        """Run plain training; the update is clipped if clients clip.

        FedProx adds its term to the loss:

            (mu / 2) |w - w_global|^2
        """
        trained = work.train(
            received.shared,
            trained=lambda name: self.trains(name, received.round),
            loss_term=self._proximal_term(received) if "proximal_mu" in self._options else None,
        )
        sent = self.sent(trained, received.round)
        return LocalResult(sent if self._privacy is None else self._privacy.clip(sent, received))

    def download(self, shared: SharedState, client: int, rank: int, round: int) -> Received:
        """Return the state, and the clipping norm if clients clip."""
        received = super().download(shared, client, rank, round)
        return received if self._privacy is None else replace(received, extra=self._privacy.extra())

    def start(self, shared: SharedState, round: int) -> None:
        """Begin a round.

        Raises:
            UserError: If the noise is more than so few clients can carry, or delta is too large.
        """
        self.released = None
        self._shared, self._round = shared, round
        self._messages: list[Message] = []
        self._start = {name: tensor for name, tensor in shared.tensors().items() if self.sends(name, round)}
        if self._privacy is not None and self.num_clients:
            check_delta(self._privacy.delta, self.num_clients)
        if self._privacy is not None and self.clients_per_round:
            try:
                self._privacy.wrapper(self.clients_per_round)
            except ValueError as error:
                raise UserError(f"dp: {error}") from None

    def add(self, update: Update) -> None:
        """Keep the update as the message that Flower's strategies expect."""
        metrics: dict[str, float] = {WEIGHT: 1 if self._privacy is not None else update.num_examples}
        tensors = dict(update.tensors)
        if NORM_BIT in tensors:
            metrics[NORM_BIT] = int(float(tensors.pop(NORM_BIT)) > 0.5)
        if self._kind.strategy is flower.QFedAvg:
            loss = update.metrics.get(_LOSS)
            if loss is None or loss < 0:
                self._warn(f"client {update.client} reports the loss {loss}: its update is left out")
                return
            metrics[_LOSS] = loss
        self._messages.append(_message(update.client, self._arrays(tensors), metrics))

    def finish(self) -> SharedState:
        """Return the result of the strategy's `aggregate_train`, or the unchanged state if there is none."""
        messages, self._messages = self._messages, []
        if not messages:
            return self._shared
        if self._attackers and len(messages) < self._least(self._attackers):
            self._warn(f"{len(messages)} updates are too few for {self._attackers} attackers: no change")
            return self._shared
        if self._attackers and isinstance(self._strategy, flower.FedTrimmedAvg):
            # Flower cuts int(beta K) at both ends; the quarter allows for the rounding of the product
            self._strategy.beta = (self._attackers + 0.25) / len(messages)
        if self._privacy is not None:
            mean = self._privacy.mean(
                messages, self._arrays(self._start), self._round, self.seed, self.clients_per_round
            )
            self.released = self._privacy.released
            # what a strategy makes of the noisy mean alone reveals no more of a client
            messages = [_message(0, mean, {WEIGHT: 1})]
        if isinstance(self._strategy, flower.FedAvgM):
            self._strategy.current_arrays = None  # it would continue from its own copy
        self._strategy.configure_train(self._round, self._arrays(self._start), ConfigRecord(), NO_NODES)
        arrays, _ = self._strategy.aggregate_train(self._round, messages)
        if arrays is None:
            self._warn(f"{len(messages)} updates are too few: the state stays as it was")
            return self._shared
        # copy: arrays decoded from bytes are not writable
        found = {
            name: torch.from_numpy(array.numpy().astype(np.float32, copy=True))
            for name, array in arrays.items()
        }
        if self._kind.centred:
            found = {name: self._start[name] + change for name, change in found.items()}
        return self._shared.with_tensors(found)

    def state(self) -> dict[str, Tensor]:
        """Return momentum, moments and clipping norm, under the names that Flower's classes give them."""
        found: dict[str, Tensor] = {} if self._privacy is None else self._privacy.state()
        for memory in _MEMORY:
            values = getattr(self._strategy, memory, None) or {}
            # FedAvgM's is a list, in the order of the tensors
            named = values if isinstance(values, dict) else {f"{at:06d}": x for at, x in enumerate(values)}
            found |= {f"{memory}/{name}": torch.tensor(value) for name, value in named.items()}
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, in place of everything remembered."""
        for memory in _MEMORY:
            named = {
                name.removeprefix(f"{memory}/"): tensor.numpy().copy()
                for name, tensor in sorted(state.items())
                if name.startswith(f"{memory}/")
            }
            if hasattr(self._strategy, memory):
                values = list(named.values()) if "vector" in memory else named
                setattr(self._strategy, memory, values or None)
        if self._privacy is not None:
            self._privacy.load(state)

    def _proximal_term(self, received: Received) -> Any:
        mu, start = self._options["proximal_mu"], received.shared.tensors()

        def term(parameters: Parameters) -> Tensor:
            distances = [((w - start[name].to(w)) ** 2).sum() for name, w in parameters.items()]
            return mu / 2 * torch.stack(distances).sum()

        return term

    def _arrays(self, tensors: Mapping[str, Tensor]) -> ArrayRecord:
        # Array copies into bytes, so a strategy cannot change our tensors
        if self._kind.centred:
            tensors = {name: tensor - self._start[name] for name, tensor in tensors.items()}
        return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})

    def _warn(self, text: str) -> None:
        name = self._kind.strategy.__name__
        warnings.warn(f"round {self._round}: Flower's {name}: {text}", RuntimeWarning, stacklevel=3)


def _message(client: int, arrays: ArrayRecord, metrics: Mapping[str, float]) -> Message:
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(dict(metrics))})
    origin = Metadata(0, "", client, 0, "", "", 0.0, 1.0, "train")
    return Message(content=content, metadata=origin)  # type: ignore[call-overload]
