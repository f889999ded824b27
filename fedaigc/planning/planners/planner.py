"""The interface of planners."""

from typing import Protocol, runtime_checkable

from fedaigc.planning.plan import Plan
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks


@runtime_checkable
class Planner(Protocol):
    """Makes a plan.

    Its plans keep every member within the tolerance at every node. What it minimises, and how well, is its own affair;
    deadlines are met around it: see `fedaigc.planning.deadlines`.
    """

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return a plan in which every task runs alone or is a member of nested nodes."""
        ...
