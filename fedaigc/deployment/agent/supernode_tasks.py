"""The messages that a SuperNode has for its app, from Flower's runtime API."""

import threading
from typing import Any

from fedaigc.flower_private import (
    AcquireTaskRequest,
    AcquireTaskResponse,
    PullObjectRequest,
    PullObjectResponse,
    RuntimeHttpClient,
    TaskType,
)


class Tasks:
    """The messages of a SuperNode as tasks, one after the other.

    Args:
        client: Client of the SuperNode's runtime API.
    """

    def __init__(self, client: RuntimeHttpClient) -> None:
        self._client = client
        self._held: AcquireTaskResponse | None = None
        self._lock = threading.Lock()

    def next(self) -> AcquireTaskResponse | None:
        """Return the next task; None if none is waiting yet."""
        with self._lock:
            found, self._held = self._held or self._acquired(), None
            return found

    def another(self) -> bool:
        """Return whether a further task follows the last one that `next` returned."""
        with self._lock:
            self._held = self._held or self._acquired()
            return self._held is not None

    def _acquired(self) -> AcquireTaskResponse | None:
        found: AcquireTaskResponse = self._client.AcquireTask(
            AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP.value], agentapp_fab_hashes=[])
        )
        return found if found.HasField("task") and found.token else None


class UntilAnother:
    """A client of one task that waits for parts of its message only while the SuperNode may receive them.

    A SuperNode receives one message after the other, and creates the task of a message before its parts have
    arrived. If the run ends in between, Flower 1.41 leaves the task behind: its parts never arrive, and a
    client polls for them for more than an hour. Once another task exists, missing parts will not arrive.

    Args:
        client: Client of the runtime API for this task.
        tasks: The tasks of the SuperNode.
    """

    def __init__(self, client: RuntimeHttpClient, tasks: Tasks) -> None:
        self._client, self._tasks = client, tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        """Return the part, or report that it has not arrived yet or never will."""
        found: PullObjectResponse = self._client.PullObject(request)
        if found.object_available or not found.object_found or not self._tasks.another():
            return found
        # the part may have arrived just before the other message
        found = self._client.PullObject(request)
        if not found.object_available:
            found.object_found = False
        return found
