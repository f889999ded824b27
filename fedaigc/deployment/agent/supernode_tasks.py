"""The messages that a SuperNode has for its app, as Flower's runtime API gives them."""

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
    """The messages of a SuperNode as tasks, one after the other."""

    def __init__(self, client: RuntimeHttpClient) -> None:
        self._client = client
        self._held: AcquireTaskResponse | None = None
        self._lock = threading.Lock()

    def next(self) -> AcquireTaskResponse | None:
        """The next one; None if there is none yet."""
        with self._lock:
            found, self._held = self._held or self._acquired(), None
            return found

    def another(self) -> bool:
        """Whether there is one after the last that `next` gave."""
        with self._lock:
            self._held = self._held or self._acquired()
            return self._held is not None

    def _acquired(self) -> AcquireTaskResponse | None:
        found: AcquireTaskResponse = self._client.AcquireTask(
            AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP.value], agentapp_fab_hashes=[])
        )
        return found if found.HasField("task") and found.token else None


class UntilAnother:
    """A client of one task that waits for parts of its message no longer than the SuperNode receives them.

    A SuperNode receives one message after the other, and makes the task of a message before its parts are
    there. When the run ends meanwhile, Flower 1.41 leaves the task behind: its parts never come, and who asks
    for them asks for more than an hour. Once there is another task, parts that are not there will not come.
    """

    def __init__(self, client: RuntimeHttpClient, tasks: Tasks) -> None:
        self._client, self._tasks = client, tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        """The part, or that it is not there yet, or that it will not be."""
        found: PullObjectResponse = self._client.PullObject(request)
        if found.object_available or not found.object_found or not self._tasks.another():
            return found
        # it may have come just before the other message
        found = self._client.PullObject(request)
        if not found.object_available:
            found.object_found = False
        return found
