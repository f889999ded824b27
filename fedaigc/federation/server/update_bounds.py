"""How far updates and aggregates may move the shared state: a multiple of a running median.

The size of an update k is the root mean square of what it changes,

    u_k = |x_k - x| / sqrt(d_k) / max(1, tau_k / tau)

over the d_k values whose names the client received (a factor of a smaller rank against the rows that it
keeps), with tau_k the ordered local steps and tau their median over all clients: Adam moves a value by about
the learning rate a step, so more steps may move it in proportion further. Other tensors that a rule asks for
(control variates, rows of a Fisher table) are groups of their own by the first part of their names, of size
|v| / sqrt(d), and so is a loss that the rule weighs clients by. An update is refused when the size of one of
its groups is more than `ratio` times the median of the group over the last WINDOW rounds. It is refused whole
and not clipped: what is accepted is folded bit for bit as it came.

Where a group has no median yet, as in the first round, the sizes of all of the round's updates are looked at
before one is folded, and their own median counts; of two it is the smaller. A bound from the optimizer's
settings would need no other updates, but holds for few runs: AdamW moves a value by at most c_t eta in step t
(Cauchy-Schwarz on its moments: c_1 = 1, c_20 = 1.2, and 7.3 in the limit), SGD by as much as the gradient is
large, and a personal rule may send a model that it did not start from what was received.

A refused update counts for the median as if it had been at the bound. So a minority moves the median within
the range of the honest sizes, whatever it sends, while a scale that grows for all is followed within rounds.
Where more than half of the sizes are an attacker's, the median is the attacker's: it can grow by `ratio` each
round, or have honest updates refused. Within the bound any direction is accepted: one device can undo the
steps of up to `ratio` others, which only a robust rule stops.

An aggregate is bounded by the Frobenius norm of the change of all effective weights R + s B A, which a rule
that factors the same product anew does not move: it is not taken beyond `ratio` times the largest of the last
WINDOW rounds. The largest, for a rule that trains A and B in turn moves the weights 20 times further in every
other round; what an aggregate is made of is bounded already.
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
    """An update that would move the state too far."""


def groups_of(rule: Rule, received: Received) -> set[str]:
    """The groups that an update of the rule has."""
    known = received.shared.tensors()
    names = rule.expected(received, received.shared.rank)
    return {_group(name, known) for name in names} | set(rule.weighing_metrics)


def update_sizes(update: Update, received: Received, weighing_metrics: Iterable[str], steps: float) -> Sizes:
    """The size of each group of an update. steps: tau_k / tau."""
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
    """|(R + s B A)' - (R + s B A)| over all layers, a Frobenius norm."""
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
    """The sizes of a run's last rounds, and what they refuse. ratio: None refuses nothing.

    Raises ValueError for a ratio below 1, at which half of the honest updates would be refused.
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
        """Whether anything is bounded."""
        return self._ratio < math.inf

    def knows(self, groups: Collection[str]) -> bool:
        """Whether each group has a median."""
        return not self.active or self._references.keys() >= set(groups)

    def look(self, sizes: Iterable[Sizes]) -> None:
        """Take the medians of these sizes, of all of a round's updates, where there are none."""
        found: dict[str, list[float]] = {}
        for each in sizes:
            _collect(found, each)
        self._references = {group: median_low(values) for group, values in found.items()} | self._references

    def check(self, client: int, sizes: Sizes) -> None:
        """Count the sizes of an update of the round. Raises BeyondBounds for one that is too large."""
        beyond = [group for group in sorted(sizes) if self._excess(group, sizes[group]) > 1]
        _collect(self._round, {group: self._capped(group, size) for group, size in sizes.items()})
        if beyond:
            raise BeyondBounds(f"client {client}: its {self._told(beyond[0], sizes[beyond[0]])}")

    def aggregate_problem(
        self, before: SharedState, after: SharedState, memory: Mapping[str, Tensor]
    ) -> str | None:
        """Why the state after a round is not to be taken; None when it is. memory: of the rule, after it."""
        for name, tensor in after.tensors().items():
            problem = value_problem(tensor)
            if problem is not None:
                return f"{name} of the aggregate holds {problem}"
        if not all(bool(tensor.isfinite().all()) for tensor in memory.values()):
            return "the strategy's memory holds values that are not finite"
        if not self.active:
            return None
        size = effective_change(before, after)
        _collect(self._round, {AGGREGATE: self._capped(AGGREGATE, size)})
        return f"the {self._told(AGGREGATE, size)}" if self._excess(AGGREGATE, size) > 1 else None

    def end_round(self) -> None:
        """From now on the round's sizes count; a round without any is none."""
        if self._round:
            self._window.append(self._round)
        self._round = {}
        self._set_references()

    def state(self) -> dict[str, Tensor]:
        """The sizes of the last rounds, for checkpoints."""
        return {
            f"{at}/{group}": torch.tensor(values, dtype=torch.float64)
            for at, sizes in enumerate(self._window)
            for group, values in sizes.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
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
    """Of a received tensor the part that was sent back, for a client may cut its rank; zeros without any."""
    if received.shape == sent.shape:
        return received
    if received.dim() == sent.dim():
        received = received[tuple(slice(side) for side in sent.shape)]
    return received if received.shape == sent.shape else torch.zeros_like(sent)


def _collect(found: dict[str, list[float]], sizes: Sizes) -> None:
    for group, size in sizes.items():
        # nothing moved: factors beside zeros, which says nothing of the scale
        if size > 0:
            found.setdefault(group, []).append(size)
