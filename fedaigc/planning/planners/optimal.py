r"""The optimum, by mixed-integer linear programming with HiGHS [Huangfu18]: for a dozen tasks.

x(S, j) = 1 if the tasks S, two or more, share rung j. With Delta_j the steps of the rung and a_j(i, S) the damage that
it adds to member i at its distance to the mean of S:

    minimise    sum over S, j of  x(S, j) Delta_j (w_shared - sum over i in S of w_i)   + packets
    such that   sum over S with i in S of x(S, j) <= 1                  for each task i and rung j
                sum over S with i, l in S of  x(S, j) - x(S, j - 1) <= 0  for each pair i, l: a tree
                sum over j, S with i in S of a_j(i, S) x(S, j) <= tolerance

Tasks that no common set can hold are solved one component after the other.

References:
    [Huangfu18] Huangfu and Hall, "Parallelizing the dual revised simplex method", Math. Prog. Comp. 10, 2018.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from fedaigc.errors import UserError
from fedaigc.planning.plan import ALONE, Labels, Plan, plan_of
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

MOST_TASKS = 12


@dataclass(frozen=True)
class Optimum:
    """A solved plan.

    Attributes:
        plan: The best plan found.
        saved: What it saves, in the cost's unit, against no sharing.
        bound: What no plan can save more than; equal to `saved` where the optimum is proved.
    """

    plan: Plan
    saved: float
    bound: float


@dataclass(frozen=True)
class Optimal:
    """Plans by solving the integer programme.

    Attributes:
        seconds: Time limit of the solver for each component.
    """

    seconds: float = 30.0

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the best plan found within the time limit.

        Raises:
            UserError: If a component has too many tasks.
        """
        return self.solve(tasks, setting).plan

    def solve(self, tasks: Tasks, setting: Setting) -> Optimum:
        """Return the best plan found, and the bound on what any plan could save.

        Raises:
            UserError: If a component has too many tasks.
        """
        blocks = np.full((len(setting.curve.ladder), len(tasks)), ALONE)
        saved = bound = 0.0
        for rows in _components(tasks, setting):
            if len(rows) > MOST_TASKS:
                raise UserError(
                    f"{len(rows)} tasks can share with each other: the optimum is computed for at most {MOST_TASKS}; "
                    "use greedy_tree"
                )
            chosen, worth, limit = _solved(tasks.take(rows), setting, self.seconds)
            for rung, members in chosen:
                blocks[rung, rows[members]] = blocks[rung].max() + 1
            saved, bound = saved + worth, bound + limit
        return Optimum(plan_of(Labels(blocks), tasks, setting), saved, bound)


def _components(tasks: Tasks, setting: Setting) -> list[Int[np.ndarray, " m"]]:
    """Return the rows of tasks that chains of possible pairs connect, components of two and more."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import cdist

    reach = setting.curve.radius(0, setting.tolerance)
    # two members of a set lie no farther from each other than both together from its mean
    near = cdist(tasks.vectors, tasks.vectors) + tasks.slack[:, None] + tasks.slack <= 2 * reach + 1e-9
    _, labels = connected_components(near, directed=False)
    found = [np.flatnonzero(labels == label) for label in range(int(labels.max(initial=-1)) + 1)]
    return [rows for rows in found if len(rows) > 1]


def _solved(
    tasks: Tasks, setting: Setting, seconds: float
) -> tuple[list[tuple[int, Bool[np.ndarray, " n"]]], float, float]:
    """Return the chosen sets with their rungs, what they save, and the bound."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, vstack

    number, rungs = len(tasks), len(setting.curve.ladder)
    own = np.asarray(setting.weights.own_step)[tasks.classes]
    member, sets, added = _candidates(tasks, setting)
    counts = [len(each) for each in sets]
    if not counts[0]:
        return [], 0.0, 0.0
    worth = [
        steps * (member[fits] @ own - setting.weights.shared_step)
        for steps, fits in zip(setting.curve.rungs, sets, strict=True)
    ]
    worth[0] = worth[0] - setting.weights.packet * member[sets[0]].sum(1)
    rung_of = np.repeat(np.arange(rungs), counts)
    inside = member[np.concatenate(sets)]
    value = np.concatenate(worth)
    once = [csr_array((inside & (rung_of == rung)[:, None]).T.astype(float)) for rung in range(rungs)]
    damage = csr_array(np.concatenate(added).T)
    pairs = np.array([inside[:, i] & inside[:, k] for i, k in combinations(range(number), 2)])
    together = [csr_array((pairs & (rung_of == rung)).astype(float)) for rung in range(rungs)]
    nested = [together[rung] - together[rung - 1] for rung in range(1, rungs)]
    constraints = [
        LinearConstraint(vstack(once), ub=1.0),
        LinearConstraint(damage, ub=setting.tolerance + 1e-12),
    ]
    if nested:
        constraints.append(LinearConstraint(vstack(nested), ub=0.0))
    unit = _unit(value)
    most = float(setting.curve.ladder[-1] * own.sum())
    result = milp(
        -value,
        integrality=np.ones(len(value)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        # two plans whose costs differ do so by a unit at least
        options={"time_limit": seconds, "mip_rel_gap": 0.9 * unit / most if most else 0.0},
    )
    limit = most if result.mip_dual_bound is None else min(most, -float(result.mip_dual_bound))
    if unit:
        limit = float(np.floor(limit / unit + 1e-6)) * unit
    if result.x is None:
        return [], 0.0, limit
    taken = np.flatnonzero(result.x > 0.5)
    chosen = [(int(rung_of[index]), inside[index]) for index in taken]
    return chosen, float(value[taken].sum()), limit


def candidates(tasks: Tasks, setting: Setting) -> int:
    """Return the number of variables: pairs of a set and a rung that some tree within the tolerance could hold."""
    return sum(len(each) for each in _candidates(tasks, setting)[1])


def _candidates(
    tasks: Tasks, setting: Setting
) -> tuple[Bool[np.ndarray, "sets n"], list[Int[np.ndarray, " _"]], list[Float[np.ndarray, "_ n"]]]:
    """Return all sets, those to consider at each rung, and the damage that the rung adds to their members."""
    member = (np.arange(2 ** len(tasks))[:, None] >> np.arange(len(tasks)) & 1).astype(bool)
    distances = _distances(member, tasks)
    least = np.zeros(member.shape)
    sets, added = [], []
    for rung in range(len(setting.curve.ladder)):
        extra = np.where(member, setting.curve.added(rung, distances), 0.0)
        least = np.where(member, extra + _least_above(least), 0.0)
        # no tree with this set at this rung keeps all members within the tolerance
        least[(member.sum(1) < 2) | (least > setting.tolerance + 1e-12).any(1)] = np.inf
        fits = np.flatnonzero(np.isfinite(least).all(1))
        sets.append(fits)
        added.append(extra[fits])
    return member, sets, added


def _unit(values: Float[np.ndarray, " columns"]) -> float:
    """Return the greatest common divisor of whole numbers; 0 if they are none."""
    whole = np.rint(values)
    return float(np.gcd.reduce(whole.astype(np.int64))) if np.abs(whole - values).max() < 1e-9 else 0.0


def _least_above(damage: Float[np.ndarray, "sets n"]) -> Float[np.ndarray, "sets n"]:
    """Return, for each set and task, the smallest value of the set and all that contain it; rows are bit masks."""
    found = damage.copy()
    masks = np.arange(len(found))
    for bit in range(found.shape[1]):
        without = masks[masks >> bit & 1 == 0]
        found[without] = np.minimum(found[without], found[without | 1 << bit])
    return found


def _distances(member: Bool[np.ndarray, "sets n"], tasks: Tasks) -> Float[np.ndarray, "sets n"]:
    """Return the distance of each task to the mean of each set, slack included; the empty set's mean is 0."""
    centres = member @ tasks.vectors / np.maximum(1, member.sum(1))[:, None]
    apart = np.linalg.norm(tasks.vectors[None] - centres[:, None], axis=2)
    return np.asarray(apart + tasks.slack)
