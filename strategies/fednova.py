"""FedNova: averages updates per local step, so that clients with more steps do not bias the objective.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization", NeurIPS 2020, arXiv:2007.07481.

    x <- x + tau sum_k p_k (y_k - x) / tau_k,   tau = sum_k p_k tau_k,   p_k = n_k / sum n

where tau_k is the number of local steps that client k reports. It equals the paper's |a_k|_1 for plain SGD. With AdamW
a step is not a gradient, and the division by the number of steps is a heuristic.

Keeps: stage. The edge runs W0 + R + s B A.
Traits: stateless. Not exact, and not averaging: equal updates y after unequal numbers of steps result in

    x + (y - x) tau sum_k p_k / tau_k

which is y or lies beyond it.

With equal numbers of steps, the rule is FedIT: tau / tau_k = 1 and x + sum_k p_k (y_k - x) = sum_k p_k y_k. One client
is the identity.
"""

from dataclasses import dataclass

from fedaigc.strategy.rule import Rule, SharedState, Traits, Update, WeightedMean


@dataclass
class Strategy(Rule):
    """Both halves of FedNova; the client half is plain training."""

    traits = Traits(averaging=False)

    def start(self, shared: SharedState, round: int) -> None:
        """Reset the sums."""
        self._shared = shared
        self._start = self.sent(shared, round)
        self._mean = WeightedMean()
        self._steps = 0.0

    def add(self, update: Update) -> None:
        """Add n_k (y_k - x) / tau_k and n_k tau_k to the sums."""
        steps = {name: (y - self._start[name]) / update.num_steps for name, y in update.tensors.items()}
        self._mean.add(update.num_examples, steps)
        self._steps += update.num_examples * update.num_steps

    def finish(self) -> SharedState:
        """Return x plus tau times the mean step."""
        if not self._mean.total:
            return self._shared
        tau = self._steps / self._mean.total
        return self._shared.with_tensors(
            {name: self._start[name] + tau * step for name, step in self._mean.finish().items()}
        )
