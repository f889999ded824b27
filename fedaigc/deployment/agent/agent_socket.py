"""The Unix socket between a device's agent and its relay, for a closed list of requests.

A request names one of the messages of the federation (`Ask`), with the run's configuration and the message;
the reply is of the closed list in docs/threats.md ("What a device sends"). A "status" request is answered with
numbers. No request takes a path, and no reply holds an image, or a prompt except under the policy `open`.
"""

import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from fedaigc.bounds import MAX_FRAME_BODY_BYTES, MAX_FRAME_HEADER_BYTES
from fedaigc.errors import UserError
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.record_bounds import check_records
from fedaigc.flower_private import ProtoRecordDict, recorddict_from_proto, recorddict_to_proto
from fedaigc.storage.bounded_json import read_json

SOCKET = "agent.sock"
STATUS = "status"
# longest path of a Unix socket on Linux, in bytes, including the final zero
_MAX_PATH = 108
_LENGTHS = struct.Struct("!IQ")


class AgentUnreachable(UserError):
    """No agent answers on this home's socket."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request to the agent.

    Attributes:
        ask: Kind of the message, or `STATUS`.
        config: The run's configuration as JSON, as the server sent it; empty for `STATUS`.
        content: The message; None if it is empty.
    """

    ask: str
    config: str = ""
    content: RecordDict | None = None


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer of the agent.

    Attributes:
        content: The reply to a message.
        status: The agent's status, in reply to `STATUS`.
    """

    content: RecordDict | None = None
    status: dict[str, Any] | None = None


def socket_path(home: Path) -> Path:
    """Return the socket of a home's agent. UserError if the path is too long for a socket."""
    path = home.absolute() / SOCKET
    if len(str(path).encode()) >= _MAX_PATH:
        raise UserError(f"{path} is too long for a socket ({_MAX_PATH - 1} bytes): use a shorter home")
    return path


def ask_agent(home: Path, request: Request, timeout_s: float | None = None) -> Reply:
    """Send a request to the agent of a home and return the reply.

    Args:
        home: Home of the device.
        request: The request.
        timeout_s: Timeout of each socket operation in seconds; None: no timeout.

    Raises:
        AgentUnreachable: If no agent answers, or the agent ends while it works on the request.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(socket_path(home)))
            send_frame(connection, {"ask": request.ask, "config": request.config}, request.content)
            header, content = read_frame(connection)
    except (OSError, EOFError) as error:
        raise AgentUnreachable(f"no agent answers at {socket_path(home)}: {error}") from error
    return Reply(content, header.get("status"))


def read_request(connection: socket.socket) -> Request:
    """Read the next request from a connection.

    Raises:
        ValueError: If the request is not in the closed list or is malformed.
        EOFError: If the peer closed the connection.
    """
    header, content = read_frame(connection)
    ask, config = header.get("ask"), header.get("config")
    if set(header) != {"ask", "config"} or not isinstance(config, str):
        raise ValueError("invalid request: expected the keys ask and config")
    if ask != STATUS and ask not in set(Ask):
        raise ValueError("unknown request: expected `status` or a message of the federation")
    return Request(str(ask), config, content)


def send_frame(connection: socket.socket, header: dict[str, Any], content: RecordDict | None) -> None:
    """Send a header and a message, preceded by their lengths."""
    text = json.dumps(header).encode()
    payload = b"" if content is None else recorddict_to_proto(content).SerializeToString()
    connection.sendall(_LENGTHS.pack(len(text), len(payload)) + text)
    # sending even an empty payload would fail once the peer has answered and closed
    if payload:
        connection.sendall(payload)


def read_frame(connection: socket.socket) -> tuple[dict[str, Any], RecordDict | None]:
    """Receive what `send_frame` sent.

    Returns:
        The header and the message; None if the message is empty.

    Raises:
        ValueError: If a length is beyond its bound or the header is invalid.
        EOFError: If the peer closed the connection.
    """
    text_length, payload_length = _LENGTHS.unpack(_read(connection, _LENGTHS.size))
    if text_length > MAX_FRAME_HEADER_BYTES or payload_length > MAX_FRAME_BODY_BYTES:
        raise ValueError(f"a frame of {text_length} and {payload_length} bytes exceeds the limits")
    text = _read(connection, text_length).decode()
    header = read_json(text, max_characters=MAX_FRAME_HEADER_BYTES, max_depth=2)
    if not isinstance(header, dict):
        raise ValueError("invalid frame: expected a JSON object as its header")
    if not payload_length:
        return header, None
    record = ProtoRecordDict.FromString(_read(connection, payload_length))
    check_records(record)
    return header, recorddict_from_proto(record)


def _read(connection: socket.socket, length: int) -> bytes:
    parts, missing = [], length
    while missing:
        part = connection.recv(min(missing, 1 << 20))
        if not part:
            raise EOFError("the connection ended within a frame")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
