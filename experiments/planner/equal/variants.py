"""The settings of each planner that are tried.

A *variant* is a planner, its own parameter if it has one, and the largest risk. A *family* is variants of one planner
that differ in one number, ascending: the larger it is, the more they share, and the more a picture may lose. A risk of
`UNBOUND` leaves the planner's own rule alone to decide, as its authors have it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.plan import Plan
from fedaigc.planning.planners.exact_match import ExactMatch
from fedaigc.planning.planners.fixed import Fixed
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.planners.kmeans import KMeans
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.planners.random_groups import RandomGroups
from fedaigc.planning.planners.similarity_steps import MODM, NIRVANA, SimilaritySteps
from fedaigc.planning.planners.two_levels import TwoLevels
from fedaigc.planning.planners.ward import Ward
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

UNBOUND = 1.0
OURS = "greedy_tree"


@dataclass(frozen=True)
class Later:
    """Plans without the first hand-offs of the ladder.

    Attributes:
        planner: The planner.
        first: The first hand-off that remains.
    """

    planner: Planner
    first: int

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan."""
        curve = setting.curve
        kept = [rung for rung, handoff in enumerate(curve.ladder) if handoff >= self.first]
        ladder = tuple(curve.ladder[rung] for rung in kept)
        later = DamageCurve(curve.steps, ladder, curve.knots, curve.upper[kept])
        return self.planner(tasks, replace(setting, curve=later))


@dataclass(frozen=True)
class Variant:
    """A planner with its settings.

    Attributes:
        name: Name of the planner.
        own: Its own parameter, as words; empty if it has none.
        risk: The largest risk.
        planner: The planner.
    """

    name: str
    own: str
    risk: float
    planner: Planner

    @property
    def key(self) -> str:
        """Name, parameter and risk, as records have it."""
        return ", ".join(filter(None, (self.name, self.own, f"risk {self.risk:g}")))


Family = tuple[Variant, ...]


def _by_risk(name: str, own: str, planner: Planner, risks: Sequence[float]) -> Family:
    return tuple(Variant(name, own, risk, planner) for risk in risks)


def _similarity(name: str, authors: SimilaritySteps) -> Iterator[Family]:
    """Yield families with the authors' quantiles, and with parts of them."""
    for factor in (0.25, 0.5, 1.0):
        quantiles = tuple(factor * each for each in authors.quantiles)
        planner = SimilaritySteps(authors.shares, quantiles)
        yield _by_risk(name, f"quantiles times {factor:g}", planner, (0.2, UNBOUND))


def families() -> dict[str, tuple[Family, ...]]:
    """Return the families of each planner that has something to choose."""

    def make(name: str, planner: Callable[[], Planner], *risks: float) -> Family:
        return _by_risk(name, "", planner(), risks)

    taus = tuple(Variant("ward", f"tau {tau}", UNBOUND, Ward(tau)) for tau in (11, 14, 17, 20, 24))
    return {
        "exact_match": (make("exact_match", ExactMatch, 0.2),),
        "random_groups": (make("random_groups", RandomGroups, 0.3, 0.5),),
        "kmeans": tuple(_by_risk("kmeans", f"groups of {size}", KMeans(size), (0.2, 0.3)) for size in (2, 4)),
        "fixed": tuple(
            _by_risk("fixed", f"K = {handoff}", Fixed(handoff), (0.2, 0.4, 0.6)) for handoff in (5, 10)
        ),
        "nirvana": tuple(_similarity("nirvana", NIRVANA)),
        "modm": tuple(_similarity("modm", MODM)),
        "ward": (make("ward", Ward, 0.15, 0.2, 0.25), taus),
        "two_levels": (make("two_levels", TwoLevels, 0.2, 0.3, 0.4, 0.5, 0.6),),
        OURS: (
            make(OURS, GreedyTree, 0.1, 0.15, 0.175, 0.2, 0.25),
            _by_risk(OURS, "from K = 3 on", Later(GreedyTree(), 3), (0.15, 0.2, 0.25)),
        ),
    }
