"""Bounds on how far updates and aggregates move the shared state, as multiples of the sizes in recent rounds.

The size of update k is the root mean square of its change,

    u_k = |x_k - x| / sqrt(d_k) / max(1, tau_k / tau)

where

    x, x_k    the received and the returned values
    d_k       the number of values. Factors of a smaller rank are compared with the rows that they keep.
    tau_k     the ordered local steps of client k
    tau       the median of tau_k over all clients

The last factor allows larger changes for more local steps, because Adam moves a value by about the learning rate
per step. Further tensors that a rule requests (control variates, rows of a Fisher table) form groups by the first
part of their names, with size |v| / sqrt(d). A loss that the rule weighs clients by is a group as well.

An update is refused if the size of any of its groups exceeds `ratio` times the median of this group over the last
WINDOW rounds. It is refused as a whole and not clipped, so that accepted updates are aggregated bit for bit.

If a group has no median yet, as in the first round, the sizes of all updates of the round are computed before the
first update is aggregated, and their median applies (the lower one of two). A bound from the optimizer's settings
would not need other updates, but holds for few runs. AdamW moves a value by at most c_t eta in step t
(Cauchy-Schwarz on its moments: c_1 = 1, c_20 = 1.2, and 7.3 in the limit), but SGD has no such limit, and a
personalized rule may return a model that did not start from the received one.

A refused update enters the median as if its size were at the bound. A minority can therefore move the median only
within the range of the honest sizes, while a scale that grows for all clients is followed within a few rounds. If
more than half of the sizes are an attacker's, it controls the median: the median can grow by `ratio` per round, or
honest updates are refused. Within the bound, any direction is accepted: one device can undo the steps of up to
`ratio` others. Only a robust rule prevents this.

The size of an aggregate is the Frobenius norm of the change of all effective weights R + s B A, which does not
depend on how a rule factors the product. An aggregate is rejected if its size exceeds `ratio` times the largest of
the last WINDOW rounds. The largest applies, and not the median, because a rule that trains A and B in turn moves
the weights 20 times further in every other round, and the updates in an aggregate are bounded already.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from statistics import median_low

import torch
from torch import Tensor

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.wire.read_update import RefusedUpdate, value_problem
from fedaigc.strategy.low_rank import dense
from fedaigc.strategy.rule import Received, Rule, Update

WINDOW = 8
CHANGE = "change"
AGGREGATE = "aggregate"

Sizes = Mapping[str, float]


class BeyondBounds(RefusedUpdate):
    """The size of an update exceeds the bound."""


def groups_of(rule: Rule, received: Received) -> set[str]:
    """Return the groups in an update of the rule."""
    known = received.shared.tensors()
    names = rule.expected(received, received.shared.rank)
    return {_group(name, known) for name in names} | set(rule.weighing_metrics)


def update_sizes(update: Update, received: Received, weighing_metrics: Iterable[str], steps: float) -> Sizes:
    """Return the size of each group in an update.

    Args:
        update: The update to measure.
        received: What the client received at the start of the round.
        weighing_metrics: Names of the losses that the rule weighs clients by.
        steps: tau_k / tau.
    """
    known = received.shared.tensors()
    squares: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name, tensor in update.tensors.items():
        group = _group(name, known)
        moved = tensor - _same_part(known[name], tensor) if group == CHANGE else tensor
        squares[group] = squares.get(group, 0.0) + float(torch.linalg.vector_norm(moved)) ** 2
        counts[group] = counts.get(group, 0) + tensor.numel()
    sizes = {group: math.sqrt(total / max(1, counts[group])) for group, total in squares.items()}
    if CHANGE in sizes:
        sizes[CHANGE] /= max(1.0, steps)
    return sizes | {name: update.metrics[name] for name in weighing_metrics if name in update.metrics}


def effective_change(before: SharedState, after: SharedState) -> float:
    """Return the Frobenius norm of the change of R + s B A over all layers."""
    total = 0.0
    layers = {layer for state in (before, after) for layer in (*state.lora, *state.residual)}
    for layer in sorted(layers):
        parts = []
        for state, sign in ((after, 1.0), (before, -1.0)):
            if layer in state.lora:
                parts.append(sign * state.adapter.scale * dense(state.lora[layer]).flatten(1))
            if layer in state.residual:
                parts.append(sign * dense(state.residual[layer]).flatten(1))
        moved = parts.pop()
        for part in parts:
            moved.add_(part)
        total += float(torch.linalg.vector_norm(moved)) ** 2
    return math.sqrt(total)


class UpdateBounds:
    """The sizes of the last rounds of a run, and the bounds that follow from them.

    Args:
        ratio: The largest accepted multiple of the reference size. None accepts all sizes.

    Raises:
        ValueError: If `ratio` is below 1, which would refuse half of the honest updates.
    """

    def __init__(self, ratio: float | None) -> None:
        if ratio is not None and not ratio >= 1:
            raise ValueError(f"a ratio of {ratio}: expected 1 or more")
        self._ratio = math.inf if ratio is None else float(ratio)
        self._window: deque[dict[str, list[float]]] = deque(maxlen=WINDOW)
        self._round: dict[str, list[float]] = {}
        self._references: dict[str, float] = {}

    @property
    def active(self) -> bool:
        """Return whether sizes are bounded."""
        return self._ratio < math.inf

    def limits(self) -> dict[str, float]:
        """Return the largest accepted size of each group that has a reference size."""
        return {group: self._ratio * size for group, size in self._references.items()} if self.active else {}

    def knows(self, groups: Collection[str]) -> bool:
        """Return whether all of `groups` have a reference size, or sizes are not bounded."""
        return not self.active or self._references.keys() >= set(groups)

    def look(self, sizes: Iterable[Sizes]) -> None:
        """Set the references of groups without one to the medians of `sizes`, those of all updates of a round."""
        found: dict[str, list[float]] = {}
        for each in sizes:
            _collect(found, each)
        self._references = {group: median_low(values) for group, values in found.items()} | self._references

    def check(self, client: int, sizes: Sizes) -> None:
        """Record the sizes of an update of the current round.

        Raises:
            BeyondBounds: If one of the sizes exceeds its bound.
        """
        beyond = [group for group in sorted(sizes) if self._excess(group, sizes[group]) > 1]
        _collect(self._round, {group: self._capped(group, size) for group, size in sizes.items()})
        if beyond:
            raise BeyondBounds(f"client {client}: its {self._told(beyond[0], sizes[beyond[0]])}")

    def aggregate_problem(
        self, before: SharedState, after: SharedState, rule_state: Mapping[str, Tensor]
    ) -> str | None:
        """Return why the aggregate of a round must be rejected, or None if it is accepted.

        Args:
            before: The shared state before the round.
            after: The aggregate.
            rule_state: The rule_state of the rule after the round.
        """
        for name, tensor in after.tensors().items():
            problem = value_problem(tensor)
            if problem is not None:
                return f"{name} of the aggregate holds {problem}"
        if not all(bool(tensor.isfinite().all()) for tensor in rule_state.values()):
            return "the strategy's memory holds values that are not finite"
        if not self.active:
            return None
        size = effective_change(before, after)
        _collect(self._round, {AGGREGATE: self._capped(AGGREGATE, size)})
        return f"the {self._told(AGGREGATE, size)}" if self._excess(AGGREGATE, size) > 1 else None

    def end_round(self) -> None:
        """Add the sizes of the current round to the window. A round without sizes is not counted."""
        if self._round:
            self._window.append(self._round)
        self._round = {}
        self._set_references()

    def state(self) -> dict[str, Tensor]:
        """Return the sizes of the last rounds, for checkpoints."""
        return {
            f"{at}/{group}": torch.tensor(values, dtype=torch.float64)
            for at, sizes in enumerate(self._window)
            for group, values in sizes.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the sizes that `state` returned."""
        rounds: dict[int, dict[str, list[float]]] = {}
        for name, values in state.items():
            at, _, group = name.partition("/")
            rounds.setdefault(int(at), {})[group] = values.tolist()
        self._window = deque((rounds[at] for at in sorted(rounds)), maxlen=WINDOW)
        self._round = {}
        self._set_references()

    def _set_references(self) -> None:
        found: dict[str, list[float]] = {}
        for sizes in self._window:
            for group, values in sizes.items():
                found.setdefault(group, []).extend(values)
        self._references = {
            group: max(values) if group == AGGREGATE else median_low(values)
            for group, values in found.items()
        }

    def _excess(self, group: str, size: float) -> float:
        reference = self._references.get(group)
        return 0.0 if reference is None else size / (self._ratio * reference)

    def _capped(self, group: str, size: float) -> float:
        reference = self._references.get(group)
        return size if reference is None else min(size, self._ratio * reference)

    def _told(self, group: str, size: float) -> str:
        times = size / self._references[group]
        of = "largest" if group == AGGREGATE else "median"
        return f"{group} is {times:.3g} times the {of} of the last rounds, at most {self._ratio:g}"


def _group(name: str, known: Mapping[str, Tensor]) -> str:
    return CHANGE if name in known else name.partition("/")[0]


def _same_part(received: Tensor, sent: Tensor) -> Tensor:
    """Return the part of a received tensor that corresponds to `sent`, whose rank a client may have reduced.

    If the shapes do not correspond, return zeros.
    """
    if received.shape == sent.shape:
        return received
    if received.dim() == sent.dim():
        received = received[tuple(slice(side) for side in sent.shape)]
    return received if received.shape == sent.shape else torch.zeros_like(sent)


def _collect(found: dict[str, list[float]], sizes: Sizes) -> None:
    for group, size in sizes.items():
        # a size of zero (such as a factor whose partner is zero) says nothing about the scale
        if size > 0:
            found.setdefault(group, []).append(size)
