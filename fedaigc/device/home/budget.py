"""The budget of a device: how much its prompts may disclose within 24 hours.

`budget.json` in the home has what the owner set for this home (`fedaigc device budget`). It holds for agents and in
simulations. `agent_budget.json` has the options of the latest agent, so that other processes can show them. The smaller
of both limits is in force.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, with_config

from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile, UserError

if TYPE_CHECKING:
    from fedaigc.device.limits import OwnerLimits

BUDGET_NAME = "budget.json"
AGENT_BUDGET_NAME = "agent_budget.json"


@dataclass(frozen=True)
class Price:
    """What one disclosure counts.

    Attributes:
        bits: Bits that it tells at most.
        epsilon: Epsilon of its noise; None: it has no noise, so that no epsilon bounds it.
    """

    bits: float
    epsilon: float | None = None


FREE = Price(0.0, 0.0)


@dataclass(frozen=True)
class Budget:
    """Limits of an owner; infinity for none.

    Attributes:
        bits_a_day: Bits within 24 hours.
        epsilon_a_day: Sum of epsilon within 24 hours. With such a limit nothing without noise is disclosed.
        node_epsilon: Largest epsilon of a node. With such a limit every node is drawn with noise.

    Raises:
        UserError: If a limit is negative or not a number, or the epsilon of a node is 0.
    """

    bits_a_day: float = math.inf
    epsilon_a_day: float = math.inf
    node_epsilon: float = math.inf

    def __post_init__(self) -> None:
        # written so that NaN is refused as well: it would count as no limit
        if not (self.bits_a_day >= 0 and self.epsilon_a_day >= 0 and self.node_epsilon > 0):
            raise UserError(
                f"a budget of {self.bits_a_day} bits and epsilon {self.epsilon_a_day} a day, nodes with epsilon "
                f"{self.node_epsilon}: expected numbers of at least 0, for nodes above 0, or inf for no limit"
            )

    @classmethod
    def of(cls, limits: "OwnerLimits") -> "Budget":
        """Return the part of an agent's limits that is about disclosures."""
        return cls(limits.max_bits_a_day, limits.max_epsilon_a_day, limits.max_node_epsilon)

    def and_(self, other: "Budget") -> "Budget":
        """Return the smaller one of each limit."""
        return Budget(
            min(self.bits_a_day, other.bits_a_day),
            min(self.epsilon_a_day, other.epsilon_a_day),
            min(self.node_epsilon, other.node_epsilon),
        )

    def allows(self, spent: Price, price: Price) -> bool:
        """Return whether a disclosure is within the budget.

        Args:
            spent: The sums of the last 24 hours.
            price: The disclosure.
        """
        # written so that NaN is refused as well
        if not spent.bits + price.bits <= self.bits_a_day:
            return False
        if price.epsilon is None:
            return self.epsilon_a_day == math.inf
        return (spent.epsilon or 0.0) + price.epsilon <= self.epsilon_a_day


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class _Stored:
    """A budget as JSON, which has no infinity: null is no limit."""

    bits_a_day: Annotated[float, Field(ge=0)] | None = None
    epsilon_a_day: Annotated[float, Field(ge=0)] | None = None
    node_epsilon: Annotated[float, Field(gt=0)] | None = None


def budget_of(home: Home, limits: "OwnerLimits | None") -> Budget:
    """Return the budget in force: that of the home, and that of the agent, if one asks.

    Raises:
        DamagedFile: If the home's budget cannot be read: it must not count as none.
    """
    own = _read(home, home.root / BUDGET_NAME)
    return own if limits is None else own.and_(Budget.of(limits))


def home_budget(home: Home) -> Budget:
    """Return the budget that the owner set for this home; DamagedFile as `budget_of`."""
    return _read(home, home.root / BUDGET_NAME)


def shown_budget(home: Home) -> Budget:
    """Return the budget in force as far as the home knows it: with the options of the latest agent."""
    return home_budget(home).and_(_read(home, home.root / AGENT_BUDGET_NAME))


def set_home_budget(home: Home, budget: Budget) -> None:
    """Set the budget of a home."""
    _write(home, home.root / BUDGET_NAME, budget)


def note_agent_budget(home: Home, limits: "OwnerLimits") -> None:
    """Keep the options of an agent that starts, for other processes to show; UserError as `Budget`."""
    _write(home, home.root / AGENT_BUDGET_NAME, Budget.of(limits))


def budget_files(home: Home) -> list[Path]:
    """Return the files of budgets that cannot be read."""
    found = []
    for path in (home.root / BUDGET_NAME, home.root / AGENT_BUDGET_NAME):
        try:
            _read(home, path)
        except DamagedFile:
            found.append(path)
    return found


def _read(home: Home, path: Path) -> Budget:
    if not path.exists():
        return Budget()
    found = home.read(path, _Stored)
    limits = (found.bits_a_day, found.epsilon_a_day, found.node_epsilon)
    return Budget(*(math.inf if limit is None else limit for limit in limits))


def _write(home: Home, path: Path, budget: Budget) -> None:
    named = {name: getattr(budget, name) for name in ("bits_a_day", "epsilon_a_day", "node_epsilon")}
    home.write_json(path, {name: None if limit == math.inf else limit for name, limit in named.items()})
