"""Messages to nodes, and the replies in the order of the messages, whoever answers first."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp.grid import Grid

from fedaigc.device.report import Failure
from fedaigc.federation.ledger import Ledger
from fedaigc.federation.messages import Ask, failure_in
from fedaigc.federation.unanswered import forget

_PULL_S = 0.05
# at most so many replies are in memory at a time
_AT_ONCE = 8

Progress = Callable[[str, int, int], None]


def exchange(
    grid: Grid,
    kind: Ask,
    orders: Sequence[tuple[int, RecordDict]],
    label: str | None,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
    deadline_s: float | None = None,
    folder: Path | None = None,
) -> Iterator[RecordDict | Failure]:
    """Send each content to its node, wait for all, and yield the replies in the order of `orders`.

    A message that was not taken by its deadline is never delivered: a device that comes back does not work
    on what nobody waits for. With the message Flower drops the reply to it, also one that came in time: so
    replies are fetched as they come, not when it is their turn. folder: where they wait for it, on disk; by
    default where temporary files are.
    """
    messages = [Message(content, node, kind.value, ttl=deadline_s, group_id="0") for node, content in orders]
    ids = list(grid.push_messages(messages))
    if ledger is not None:
        for _, content in orders:
            ledger.add("down", content)
    deadline = math.inf if deadline_s is None else time.monotonic() + deadline_s

    def tell(done: int) -> None:
        if progress is not None and label is not None:
            progress(label, done, len(ids))

    with tempfile.TemporaryFile(dir=folder) as file:
        waiting = _Waiting(file)
        while missing := [message_id for message_id in ids if message_id not in waiting]:
            before = len(waiting)
            for start in range(0, len(missing), _AT_ONCE):
                came = _pulled(grid, missing[start : start + _AT_ONCE], ledger)
                waiting.keep(came)
                if came:
                    tell(len(waiting))
            if time.monotonic() >= deadline:
                break
            if len(waiting) == before:
                time.sleep(_PULL_S)
        late = [message_id for message_id in ids if message_id not in waiting]
        for message_id in late:
            forget(grid, message_id)
        if late:
            # nothing more is due
            tell(len(ids))
        for message_id in ids:
            yield waiting.pop(message_id)


class _Waiting:
    """Replies that wait for their turn, in a file: the updates of many devices do not fit into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kept: dict[str, tuple[int, int] | Failure] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._kept

    def keep(self, replies: dict[str, RecordDict | Failure]) -> None:
        for message_id, reply in replies.items():
            if isinstance(reply, Failure):
                self._kept[message_id] = reply
                continue
            start = self._file.seek(0, 2)
            self._kept[message_id] = start, self._file.write(recorddict_to_proto(reply).SerializeToString())

    def pop(self, message_id: str) -> RecordDict | Failure:
        found = self._kept.pop(message_id, Failure.LATE)
        if isinstance(found, Failure):
            return found
        start, length = found
        self._file.seek(start)
        return recorddict_from_proto(ProtoRecordDict.FromString(self._file.read(length)))


def _pulled(grid: Grid, ids: Sequence[str], ledger: Ledger | None) -> dict[str, RecordDict | Failure]:
    """The replies that are there, by the message that they answer."""
    found = {}
    for message in grid.pull_messages(ids):
        message_id = message.metadata.reply_to_message_id
        if message.has_error():
            forget(grid, message_id)
        elif ledger is not None:
            ledger.add("up", message.content)
        found[message_id] = _content(message)
    return found


def _content(reply: Message) -> RecordDict | Failure:
    # the text of a Flower error may hold what the client's exception said: it is not read
    if reply.has_error():
        return Failure.UNREACHABLE
    try:
        return failure_in(reply.content) or reply.content
    except (KeyError, TypeError, ValueError):
        return Failure.INTERNAL
