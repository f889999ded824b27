"""The planners by name."""

from collections.abc import Callable, Mapping

from fedaigc.errors import UserError
from fedaigc.planning.planners.alone import Alone
from fedaigc.planning.planners.exact_match import ExactMatch
from fedaigc.planning.planners.fixed import Fixed
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.planners.kmeans import KMeans
from fedaigc.planning.planners.optimal import Optimal
from fedaigc.planning.planners.planner import Planner
from fedaigc.planning.planners.random_groups import RandomGroups
from fedaigc.planning.planners.similarity_steps import MODM, NIRVANA
from fedaigc.planning.planners.two_levels import TwoLevels
from fedaigc.planning.planners.ward import Ward

PLANNERS: Mapping[str, Callable[[], Planner]] = {
    "none": Alone,
    "exact_match": ExactMatch,
    "random_groups": RandomGroups,
    "kmeans": KMeans,
    "fixed": Fixed,
    "nirvana": lambda: NIRVANA,
    "modm": lambda: MODM,
    "ward": Ward,
    "two_levels": TwoLevels,
    "greedy_tree": GreedyTree,
    "optimal": Optimal,
}


def planner(name: str) -> Planner:
    """Return a planner with its defaults.

    Raises:
        UserError: If there is none of this name.
    """
    if name not in PLANNERS:
        raise UserError(f"no planner is called {name!r}: expected one of {', '.join(PLANNERS)}")
    return PLANNERS[name]()
