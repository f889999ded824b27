"""Send messages to nodes and return the replies in the order of the messages, not of arrival."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp.grid import Grid
from google.protobuf.message import DecodeError

from fedaigc.device.replies import Failure
from fedaigc.errors import PacketError
from fedaigc.federation.progress import OnProgress, Progress, Stage
from fedaigc.federation.runtime.unanswered import forget
from fedaigc.federation.server.pulling import Pulls, ReplyLost, largest_reply
from fedaigc.federation.wire.ledger import Ledger
from fedaigc.federation.wire.messages import Ask, failure_in
from fedaigc.federation.wire.record_bounds import check_records
from fedaigc.flower_private import ProtoRecordDict, recorddict_from_proto, recorddict_to_proto

T = TypeVar("T")

_PULL_S = 0.05
# errors that reading a forged reply can raise: Flower validates little, and follows nested parts without limit
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    MemoryError,
    DecodeError,
)


def exchange(
    grid: Grid,
    kind: Ask,
    orders: Sequence[tuple[int, RecordDict]],
    stage: Stage | None,
    progress: OnProgress | None = None,
    ledger: Ledger | None = None,
    deadline_s: float | None = None,
    folder: Path | None = None,
) -> Iterator[RecordDict | Failure]:
    """Send each message to its node, wait for all replies, and yield them in the order of `orders`.

    A message that a device has not fetched by the deadline is never delivered, so a device that reconnects does
    not work on an order that nobody waits for. When Flower drops a message, it also drops its reply, even one
    that arrived in time. Replies are therefore fetched as soon as they arrive.

    Args:
        grid: The grid that sends the messages.
        kind: The kind of all messages.
        orders: Node id and content of each message.
        stage: The stage of the reported progress. None reports no progress.
        progress: Called after each reply.
        ledger: Counts the bytes that are sent and received.
        deadline_s: Seconds after which a missing reply is `Failure.LATE`. None and `inf` wait without limit.
        folder: Folder on disk for replies that wait for their turn. None selects the default temporary folder.
    """
    deadline_s = None if deadline_s == math.inf else deadline_s
    messages = [Message(content, node, kind.value, ttl=deadline_s, group_id="0") for node, content in orders]
    ids = list(grid.push_messages(messages))
    if ledger is not None:
        for _, content in orders:
            ledger.add("down", content)
    deadline = math.inf if deadline_s is None else time.monotonic() + deadline_s

    def tell(done: int) -> None:
        if progress is not None and stage is not None:
            progress(Progress(stage, done, len(ids)))

    with tempfile.TemporaryFile(dir=folder) as file, tempfile.TemporaryFile(dir=folder) as parts:
        waiting = Waiting(file)
        pulls = Pulls(grid, parts, largest_reply(orders))
        while missing := [message_id for message_id in ids if message_id not in waiting]:
            before = len(waiting), pulls.parts
            began = time.monotonic()
            for message_id in missing:
                reply = _pulled(grid, message_id, ledger, pulls)
                if reply is not None:
                    waiting.keep(message_id, reply)
                    tell(len(waiting))
            ended = time.monotonic()
            if ended >= deadline:
                break
            if (len(waiting), pulls.parts) == before:
                # polling hundreds of pending messages takes long itself, so pause at least as long
                time.sleep(max(_PULL_S, ended - began))
        late = [message_id for message_id in ids if message_id not in waiting]
        for message_id in late:
            forget(grid, message_id)
            pulls.forget(message_id)
        if late:
            # no further replies are expected
            tell(len(ids))
        for message_id in ids:
            yield waiting.pop(message_id)


class Waiting:
    """Replies that wait for their turn, stored in a file because the updates of many devices exceed the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kept: dict[str, tuple[int, int] | Failure] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._kept

    def keep(self, message_id: str, reply: bytes | Failure) -> None:
        """Store a serialized reply, or the failure in its place."""
        if isinstance(reply, Failure):
            self._kept[message_id] = reply
            return
        start = self._file.seek(0, 2)
        self._kept[message_id] = start, self._file.write(reply)

    def pop(self, message_id: str) -> RecordDict | Failure:
        """Remove and return the stored reply to a message, or `Failure.LATE` if there is none."""
        found = self._kept.pop(message_id, Failure.LATE)
        if isinstance(found, Failure):
            return found
        start, length = found
        self._file.seek(start)
        return recorddict_from_proto(ProtoRecordDict.FromString(self._file.read(length)))


def _pulled(grid: Grid, message_id: str, ledger: Ledger | None, pulls: Pulls) -> bytes | Failure | None:
    """Return the serialized reply to a message, or None while there is none.

    Replies are fetched one at a time, because Flower parses them during the fetch: a forged reply raises an error
    there, which would discard all other replies of the same fetch.
    """
    try:
        reply = pulls.reply(message_id)
        if reply is None:
            return None
        if reply.has_error():
            # the error text is not used, because it may quote an exception of the client
            forget(grid, message_id)
            return Failure.UNREACHABLE
        # check before anything else: an oversized update would be copied several times
        check_records(reply.content)
        content = recorddict_to_proto(reply.content).SerializeToString()
        if ledger is not None:
            ledger.add("up", reply.content)
        return failure_in(reply.content) or content
    except ReplyLost:
        failure = Failure.UNREACHABLE
    except _UNREADABLE:
        failure = Failure.UNREADABLE
    pulls.forget(message_id)
    return failure


def parsed(reply: RecordDict | Failure, read: Callable[[RecordDict], T]) -> T | Failure:
    """Return the parsed reply, or its failure. A reply that cannot be parsed is a failure of that client only."""
    if isinstance(reply, Failure):
        return reply
    try:
        return read(reply)
    except PacketError:
        return Failure.PACKET_REFUSED
    except (KeyError, TypeError, ValueError):
        return Failure.UNREADABLE
