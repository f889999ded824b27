"""An oracle that knows the judge: in given trees, each member leaves at the last hand-off at which nothing is lost."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from jaxtyping import Int

from experiments.planner.pictures import Way
from fedaigc.metrics.judge import Verdict
from fedaigc.planning.plan import Node, Plan

EARLIER = (3, 6)
"""Hand-offs that are tried besides the own one, where they come before it."""


class Drawer(Protocol):
    """What draws and looks; `experiments.planner.pictures.Pictures` is one."""

    def verdicts(self, ways: Iterable[Way]) -> dict[Way, Verdict]:
        """Return what the judge sees in the picture of each way."""
        ...


def told_by_judge(
    pictures: Drawer,
    ways: Sequence[Way],
    plan: Plan,
    prompts: Sequence[str],
    wanted: Sequence[tuple[str, str]],
    alone: Sequence[Verdict],
) -> tuple[Plan, list[Verdict]]:
    """Return trees that each task leaves as the judge likes, and what it then sees.

    Args:
        pictures: What draws.
        ways: Way of each task in the trees.
        plan: The trees.
        prompts: Prompt of each task.
        wanted: Object and place of each prompt, as the judge names them.
        alone: What the judge sees in the picture of each task alone.
    """
    tries = {
        (row, k): Way(way.noise, (*way.runs_on[:k], *[(prompts[row],)] * (len(way.runs_on) - k)))
        for row, way in enumerate(ways)
        for k in sorted({min(k, int(plan.handoffs[row])) for k in (*EARLIER, len(way.runs_on))} - {0})
    }
    drawn = pictures.verdicts(tries.values())
    last, seen = np.zeros(len(prompts), int), list(alone)
    for (row, k), way in sorted(tries.items(), key=lambda item: item[0]):
        if _both(drawn[way], wanted[row]) >= _both(alone[row], wanted[row]):
            last[row], seen[row] = k, drawn[way]
    return left_at(plan, last), seen


def left_at(plan: Plan, last: Int[np.ndarray, " n"]) -> Plan:
    """Return a plan that each task leaves at a step of its own, none later than it did; its conditionings stay.

    A node that one member is left in still runs: what it costs is what the member would run itself.

    Args:
        plan: The plan.
        last: The last shared step of each task; 0 for none.
    """
    nodes: list[Node] = []
    ends: dict[tuple[int, int], int] = {}  # node and step -> the new node that ends there
    for index, node in enumerate(plan.nodes):
        until = np.minimum(last[node.members], node.stop)
        above = None if node.parent is None else ends.get((node.parent, node.start))
        start = node.start
        for stop in sorted({int(each) for each in until if each > node.start}):
            ends[index, stop] = len(nodes)
            members = node.members[until >= stop]
            nodes.append(replace(node, members=members, start=start, stop=stop, parent=above))
            start, above = stop, ends[index, stop]
    return Plan(tuple(nodes), last)


def _both(seen: Verdict, wanted: tuple[str, str]) -> bool:
    return (seen.object, seen.place) == wanted
