"""The ledger of a device in sums and sentences, for its owner."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fedaigc.device.home.budget import Budget, Price, shown_budget
from fedaigc.device.home.ledger import DAY_S, DisclosureLedger, Entry, total
from fedaigc.device.home.prompts import PromptQueue


@dataclass(frozen=True)
class Sums:
    """Sums over disclosures.

    Attributes:
        disclosures: Number of disclosures, answers that nothing is disclosed among them where these count.
        new: How many of them told something new of their prompt.
        nodes: How many are nodes of an atlas.
        compared: How many are answers to equality tests.
        bits: Bits.
        epsilon: Sum of epsilon of those with noise.
        exact: How many new ones have no noise, so that no epsilon bounds them.
    """

    disclosures: int
    new: int
    nodes: int
    compared: int
    bits: float
    epsilon: float
    exact: int


@dataclass(frozen=True)
class LedgerReport:
    """What an owner should know of the disclosures of a home.

    Attributes:
        days: Sums by day (UTC), oldest first.
        total: Sums over all days.
        earlier: Disclosures of an earlier version, which no ledger counted.
        spent: Sums of the last 24 hours.
        budget: The budget in force.
        alone_since: Since when prompts run alone because the budget is used up; None if they do not.
        back: When the budget allows a disclosure of that price again; infinity: not as long as the budget stands.
    """

    days: dict[str, Sums]
    total: Sums
    earlier: int
    spent: Price
    budget: Budget
    alone_since: float | None
    back: float

    @property
    def words(self) -> str:
        """The state of the budget in one or two sentences."""
        budget, spent = self.budget, self.spent
        parts = [f"at most {spent.bits:.1f} bits{_of(budget.bits_a_day)}"]
        if spent.epsilon or budget.epsilon_a_day < math.inf:
            parts.append(f"epsilon {spent.epsilon or 0.0:g}{_of(budget.epsilon_a_day)}")
        said = f"Within 24 hours prompts disclosed {', and '.join(parts)}."
        if min(budget.bits_a_day, budget.epsilon_a_day) == math.inf:
            said += " There is no budget."
        if self.total.compared:
            said += f" Equality tests answered so far: {self.total.compared}."
        if budget.node_epsilon < math.inf:
            said += f" Nodes are drawn with an epsilon of at most {budget.node_epsilon:g}."
        if self.alone_since is None:
            return said
        until = f"until {_when(self.back)} UTC" if self.back < math.inf else "as long as this budget stands"
        return (
            f"{said} The budget is used up since {_when(self.alone_since)} UTC: prompts of which it would tell "
            f"something new run alone {until}."
        )


def ledger_report(queue: PromptQueue) -> LedgerReport:
    """Return the report of a home.

    Raises:
        DamagedFile: If its budget cannot be read.
    """
    ledger, budget = queue.ledger, shown_budget(queue.home)
    entries = ledger.entries()
    days: dict[str, list[Entry]] = {}
    for entry in entries:
        days.setdefault(time.strftime("%Y-%m-%d", time.gmtime(entry.time)), []).append(entry)
    earlier = sum(not ledger.counted(one.task_id, one.signature) for one in queue.disclosures.entries())
    since, back = _alone(ledger, budget)
    return LedgerReport(
        {day: sums_of(each) for day, each in sorted(days.items())},
        sums_of(entries),
        earlier,
        ledger.spent(),
        budget,
        since,
        back,
    )


def sums_of(entries: Sequence[Entry]) -> Sums:
    """Return the sums over entries; what ran alone counts nothing."""
    told = [entry for entry in entries if entry.kind != "alone"]
    price = total(told)
    new = [entry for entry in told if not entry.again]
    return Sums(
        len(told),
        len(new),
        sum(entry.kind == "node" and bool(entry.said) for entry in told),
        sum(entry.kind == "equality" for entry in told),
        price.bits,
        price.epsilon or 0.0,
        sum(entry.epsilon is None for entry in new),
    )


def _alone(ledger: DisclosureLedger, budget: Budget) -> tuple[float | None, float]:
    """Since when the budget is used up, and until when."""
    recent = [entry for entry in ledger.entries() if entry.time > time.time() - DAY_S]
    refused = [
        entry for entry in recent if entry.kind == "alone" and not budget.allows(total(recent), entry.price)
    ]
    if not refused:
        return None, math.inf
    counted = sorted((entry for entry in recent if entry.kind != "alone"), key=lambda entry: entry.time)
    for number, entry in enumerate(counted):
        if budget.allows(total(counted[number + 1 :]), refused[-1].price):
            return refused[0].time, entry.time + DAY_S
    return refused[0].time, math.inf


def _of(limit: float) -> str:
    return f" of {limit:g}" if limit < math.inf else ""


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
