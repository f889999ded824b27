"""Everything that this package uses of Flower beyond `flwr.app`, `flwr.serverapp` and `flwr.clientapp`.

Flower may change these names, attributes and log lines in any release. No other module depends on them, so this is
the only file to review for a new version of Flower. One test imports every name, and another one searches Flower's
source for every log line. Names are imported on first access.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE as SYSTEM_TIME_TOLERANCE
    from flwr.common.constant import TIMESTAMP_HEADER as TIMESTAMP_HEADER
    from flwr.common.constant import TIMESTAMP_TOLERANCE as TIMESTAMP_TOLERANCE
    from flwr.common.constant import ErrorCode as ErrorCode
    from flwr.common.constant import SubStatus as SubStatus
    from flwr.common.serde import recorddict_from_proto as recorddict_from_proto
    from flwr.common.serde import recorddict_to_proto as recorddict_to_proto
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest as ConfirmMessageReceivedRequest
    from flwr.proto.message_pb2 import PullObjectRequest as PullObjectRequest
    from flwr.proto.message_pb2 import PullObjectResponse as PullObjectResponse
    from flwr.proto.recorddict_pb2 import RecordDict as _ProtoRecordDict
    from flwr.proto.runtime_pb2 import AcquireTaskRequest as AcquireTaskRequest
    from flwr.proto.runtime_pb2 import AcquireTaskResponse as AcquireTaskResponse
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest as PullAppMessagesRequest
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER as FLEET_HTTP_PUBLIC_KEY_HEADER
    from flwr.supercore.constant import FLEET_HTTP_SIGNATURE_HEADER as FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.constant import TaskType as TaskType
    from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM as KEY_CLIPPING_NORM
    from flwr.supercore.differential_privacy import KEY_NORM_BIT as KEY_NORM_BIT
    from flwr.supercore.differential_privacy import (
        compute_adaptive_clip_model_update as compute_adaptive_clip_model_update,
    )
    from flwr.supercore.differential_privacy import compute_clip_model_update as compute_clip_model_update
    from flwr.supercore.differential_privacy import compute_stdv as compute_stdv
    from flwr.supercore.heartbeat import HeartbeatSender as HeartbeatSender
    from flwr.supercore.heartbeat import make_task_heartbeat_fn_http as make_task_heartbeat_fn_http
    from flwr.supercore.http_logging import get_uvicorn_log_config as get_uvicorn_log_config
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree as iterate_object_tree
    from flwr.supercore.inflatable.inflatable_utils import (
        inflate_object_from_contents as inflate_object_from_contents,
    )
    from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor as RuntimeTokenHttpInterceptor
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor as RuntimeVersionHttpInterceptor
    from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor as SuperExecAuthHttpInterceptor
    from flwr.supercore.logger import console_handler as console_handler
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key as bytes_to_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes as public_key_to_bytes
    from flwr.supercore.primitives.asymmetric import verify_signature as verify_signature
    from flwr.supercore.protobuf.client import ProtobufClientInterceptor as ProtobufClientInterceptor
    from flwr.supercore.retry import make_simple_http_retry_invoker as make_simple_http_retry_invoker
    from flwr.supercore.retry.retry_invoker import RetryInvoker as RetryInvoker
    from flwr.supercore.run import Run as Run
    from flwr.supercore.run import RunNotRunningException as RunNotRunningException
    from flwr.supercore.runtime import RuntimeHttpClient as RuntimeHttpClient
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan as SuperLinkLifespan
    from flwr.superlink.cli.flower_superlink import (
        _parse_superlink_lifespan_config as _superlink_configuration,
    )
    from flwr.superlink.grid.http_grid import HttpGrid as HttpGrid
    from flwr.superlink.main import create_app as create_app
    from flwr.supernode.runtime.run_clientapp import pull_task_input as pull_task_input
    from flwr.supernode.runtime.run_clientapp import push_message as push_message
    from flwr.supernode.runtime.run_clientapp import push_task_output as push_task_output

    ProtoRecordDict = _ProtoRecordDict
    superlink_configuration = _superlink_configuration

# the same names at run time, by module
MODULES: dict[str, tuple[str, ...]] = {
    "flwr.common.constant": (
        "SYSTEM_TIME_TOLERANCE",
        "TIMESTAMP_HEADER",
        "TIMESTAMP_TOLERANCE",
        "ErrorCode",
        "SubStatus",
    ),
    "flwr.common.serde": ("recorddict_from_proto", "recorddict_to_proto"),
    "flwr.proto.message_pb2": (
        "ConfirmMessageReceivedRequest",
        "PullObjectRequest",
        "PullObjectResponse",
    ),
    "flwr.proto.runtime_pb2": ("AcquireTaskRequest", "AcquireTaskResponse", "PullAppMessagesRequest"),
    "flwr.supercore.constant": (
        "FLEET_HTTP_PUBLIC_KEY_HEADER",
        "FLEET_HTTP_SIGNATURE_HEADER",
        "TaskType",
    ),
    "flwr.supercore.differential_privacy": (
        "KEY_CLIPPING_NORM",
        "KEY_NORM_BIT",
        "compute_adaptive_clip_model_update",
        "compute_clip_model_update",
        "compute_stdv",
    ),
    "flwr.supercore.heartbeat": ("HeartbeatSender", "make_task_heartbeat_fn_http"),
    "flwr.supercore.http_logging": ("get_uvicorn_log_config",),
    "flwr.supercore.inflatable.inflatable_object": ("iterate_object_tree",),
    "flwr.supercore.inflatable.inflatable_utils": ("inflate_object_from_contents",),
    "flwr.supercore.interceptors": (
        "RuntimeTokenHttpInterceptor",
        "RuntimeVersionHttpInterceptor",
        "SuperExecAuthHttpInterceptor",
    ),
    "flwr.supercore.logger": ("console_handler",),
    "flwr.supercore.primitives.asymmetric": (
        "bytes_to_public_key",
        "public_key_to_bytes",
        "verify_signature",
    ),
    "flwr.supercore.protobuf.client": ("ProtobufClientInterceptor",),
    "flwr.supercore.retry": ("make_simple_http_retry_invoker",),
    "flwr.supercore.retry.retry_invoker": ("RetryInvoker",),
    "flwr.supercore.run": ("Run", "RunNotRunningException"),
    "flwr.supercore.runtime": ("RuntimeHttpClient",),
    "flwr.superlink.cli.flower_superlink": ("SuperLinkLifespan",),
    "flwr.superlink.grid.http_grid": ("HttpGrid",),
    "flwr.superlink.main": ("create_app",),
    "flwr.supernode.runtime.run_clientapp": ("pull_task_input", "push_message", "push_task_output"),
}
# names that differ here from Flower's
RENAMED: dict[str, tuple[str, str]] = {
    "ProtoRecordDict": ("flwr.proto.recorddict_pb2", "RecordDict"),
    "superlink_configuration": ("flwr.superlink.cli.flower_superlink", "_parse_superlink_lifespan_config"),
}
_WHERE = {name: (module, name) for module, names in MODULES.items() for name in names} | RENAMED

# log lines of a SuperNode on its connection to the server, which no interface provides
STARTING = "Starting Flower SuperNode"
NODE_ID = "SuperNode ID:"
CONNECTED = "Connection successful"
RECEIVED = "eceived successfully"
SENT = "Sent successfully"
ATTEMPT_FAILED = "Connection attempt failed"
ACTIVATION_FAILED = "Failed to activate SuperNode"
EXIT_CODE = "Exit Code:"
# from Python's ssl module
CERTIFICATE_REFUSED = "certificate verify failed"
CERTIFICATE_NOT_YET_VALID = "certificate is not yet valid"
CERTIFICATE_EXPIRED = "certificate has expired"
LOG_LINES = (STARTING, NODE_ID, CONNECTED, RECEIVED, SENT, ATTEMPT_FAILED, ACTIVATION_FAILED, EXIT_CODE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    found = globals()[name] = getattr(importlib.import_module(module), attribute)
    return found


def runtime_client(grid: "HttpGrid") -> Any:
    """Return the HTTP client that Flower's grid uses for the SuperLink."""
    return grid._runtime_client


def set_message_id(message: "Message", message_id: str) -> None:
    """Set the id of a locally assembled message to the id that the SuperLink gave it."""
    message.metadata.__dict__["_message_id"] = message_id


@contextmanager
def task_identity(run_id: int, node_id: int) -> Iterator[None]:
    """Set the run and the node that send messages, which Flower stores per process, within the context.

    A notebook may execute several runs one after another.
    """
    from flwr.supercore.task_identity import TaskIdentity

    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, 0
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before
