"""Continuous generation: repeatedly collect the waiting prompts within a window, group them and serve them.

A device answers each prompt once. A disconnected device keeps its prompts, and they are served when it reconnects.
A task that fails for a reason of its own is tried `MAX_SERVER_ATTEMPTS` times and then left to its owner.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from fedaigc.bounds import MAX_TASKS
from fedaigc.device.replies import Failure
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import GenerationRecord
from fedaigc.federation.progress import Stage
from fedaigc.federation.server.edges.generation import forwarding
from fedaigc.federation.server.generation import SIGNATURES, WaitingTasks, generate, waiting_tasks
from fedaigc.federation.server.roster import Roster

MAX_SERVER_ATTEMPTS = 3
_POLL_S = 2.0
_MAX_COUNTED = 16 * MAX_TASKS
# failures of the device or its connection, not of the task
_PASSING = (Failure.UNREACHABLE, Failure.LATE)


class PromptService:
    """Serves the prompts that wait on the devices of a roster.

    Args:
        roster: The clients of the run.
        config: The configuration of the run.
        served: Called with the record of each service that had at least one group.
    """

    def __init__(
        self, roster: Roster, config: FederationConfig, served: Callable[[GenerationRecord], None]
    ) -> None:
        self._roster = roster
        self._config = config
        self._served = served
        self._attempts: Counter[str] = Counter()

    def serve(self, shared: SharedState, stage: Stage | None = SIGNATURES) -> GenerationRecord:
        """Collect, group and serve the waiting prompts, and return the record, which may have no groups.

        Args:
            shared: The shared state to generate with.
            stage: The stage of the reported progress of the query. None reports no progress.
        """
        self._roster.admit()
        with forwarding(self._roster, self._config):
            record = self._answered(shared, stage)
        self._count(record)
        if record.groups:
            self._served(record)
        return record

    def _answered(self, shared: SharedState, stage: Stage | None) -> GenerationRecord:
        waiting = self._waiting(stage)
        window_s = self._config.generation.window_s if self._config.generation.continuous else 0.0
        if waiting.owners and window_s:
            time.sleep(window_s)
            waiting = self._waiting(stage)
        return generate(self._roster, shared, self._config, waiting)

    def serve_for(self, seconds: float, shared: SharedState) -> None:
        """Serve the prompts that arrive within `seconds`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            # no progress, because frequent polls without a result would fill the log
            if not self.serve(shared, stage=None).groups:
                time.sleep(min(_POLL_S, left))

    def _waiting(self, stage: Stage | None) -> WaitingTasks:
        """Return the waiting tasks without those that failed `MAX_SERVER_ATTEMPTS` times."""
        found = waiting_tasks(self._roster, self._config, stage)
        tried = {task for task, count in self._attempts.items() if count >= MAX_SERVER_ATTEMPTS}
        return replace(
            found,
            signatures={task: told for task, told in found.signatures.items() if task not in tried},
            owners={task: owner for task, owner in found.owners.items() if task not in tried},
        )

    def _count(self, record: GenerationRecord) -> None:
        for task in record.tasks:
            if task.failure is None:
                # a device never names an answered task again
                self._attempts.pop(task.task_id, None)
            elif task.failure not in _PASSING:
                self._attempts[task.task_id] += 1
        # drop the oldest entries, because a device may name new tasks without limit
        for name in list(self._attempts)[: max(0, len(self._attempts) - _MAX_COUNTED)]:
            del self._attempts[name]
