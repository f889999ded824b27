"""The relay waits for the parts of a message as long as its SuperNode receives them, and no longer."""

from typing import Any

import pytest
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse
from flwr.proto.task_pb2 import Task
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects
from flwr.supercore.runtime import RuntimeHttpClient

from fedaigc.deployment.agent.supernode_tasks import Tasks, UntilAnother

PART = "ab" * 32


class Runtime(RuntimeHttpClient):
    """The runtime API of a SuperNode, with parts that arrive after some requests and with waiting tasks."""

    def __init__(self, *, after: int | None, tasks: list[str]) -> None:
        # no connection: the two calls below are all that is asked
        self.after, self.tasks, self.asked = after, tasks, 0

    def AcquireTask(self, request: AcquireTaskRequest) -> AcquireTaskResponse:
        if not self.tasks:
            return AcquireTaskResponse()
        return AcquireTaskResponse(token=self.tasks.pop(0), task=Task(task_id=1))

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
        self.asked += 1
        there = self.after is not None and self.asked > self.after
        return PullObjectResponse(
            object_found=True, object_available=there, object_content=b"x" if there else b""
        )


def pulled(runtime: Any, tasks: Tasks) -> dict[str, bytes]:
    client: Any = UntilAnother(runtime, tasks)
    pull = make_pull_object_fn_protobuf(client.PullObject, Node(node_id=1), 1)
    return pull_objects([PART], pull, initial_backoff=0.01, backoff_cap=0.02, max_time=5.0)


def test_parts_that_come_late_are_waited_for() -> None:
    runtime: Any = Runtime(after=20, tasks=[])
    assert pulled(runtime, Tasks(runtime)) == {PART: b"x"}
    assert runtime.asked == 21


def test_once_there_is_another_message_parts_do_not_come() -> None:
    """A run was stopped while its message was received. Without this limit, Flower would ask for 83 minutes."""
    runtime: Any = Runtime(after=None, tasks=["next"])
    tasks = Tasks(runtime)
    with pytest.raises(ObjectPullError, match="could not be found"):
        pulled(runtime, tasks)
    assert runtime.asked == 2
    # the message that ended the wait is served next, once
    following = tasks.next()
    assert following is not None
    assert following.token == "next"
    assert tasks.next() is None


def test_a_part_that_came_just_before_the_other_message_counts() -> None:
    runtime: Any = Runtime(after=1, tasks=["next"])
    assert pulled(runtime, Tasks(runtime)) == {PART: b"x"}


def test_flower_still_asks_without_end() -> None:
    """If this fails, Flower stops by itself, and `UntilAnother` can be removed."""
    from flwr.supercore import constant

    assert constant.PULL_MAX_TRIES_PER_OBJECT * constant.PULL_BACKOFF_CAP > 3600
