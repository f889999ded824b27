"""Fetch replies from the SuperLink part by part, so that no device delays the replies of others.

A device first announces a reply with the list of its parts, and then sends the parts. Flower's own grid blocks on
an announced reply until all parts have arrived, which can take more than an hour for a slow sender, and limits
neither their number nor their size. Meanwhile, the replies of other devices may miss their deadline. Here, an
incomplete reply is polled again later. Its parts are kept on disk until then, and their total size is bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from flwr.app import Message, RecordDict
from flwr.serverapp.grid import Grid

from fedaigc.bounds import MAX_REPLY_PARTS, MIN_REPLY_BYTES, REPLY_BYTES_RATIO
from fedaigc.federation.runtime.unanswered import forget
from fedaigc.flower_private import (
    HttpGrid,
    PullAppMessagesRequest,
    PullObjectRequest,
    inflate_object_from_contents,
    iterate_object_tree,
    runtime_client,
    set_message_id,
)

# parts to fetch of one reply before the other replies are polled again
_PARTS_AT_ONCE = 32


class ReplyLost(Exception):
    """The SuperLink no longer holds a reply, because its parts did not arrive in time."""


def largest_reply(orders: Sequence[tuple[int, RecordDict]]) -> int:
    """Return the largest number of bytes that a reply to any of these orders may have."""
    largest = max((_array_bytes(content) for _, content in orders), default=0)
    return max(MIN_REPLY_BYTES, REPLY_BYTES_RATIO * largest)


def _array_bytes(content: RecordDict) -> int:
    # the ratio allows for an update with a wider number format than its order, and with further tensors
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


@dataclass(eq=False)
class _Announced:
    """A reply with missing parts.

    Attributes:
        reply_id: Flower's id of the reply.
        missing: Ids of the missing parts, in reverse order.
        held: Start and length in the file of each part that was fetched, by id.
        num_bytes: Number of bytes fetched so far.
    """

    reply_id: str
    missing: list[str]
    held: dict[str, tuple[int, int]]
    num_bytes: int = 0


class Pulls:
    """The pending replies of one exchange.

    Args:
        grid: The grid that holds the replies.
        file: Stores the parts of incomplete replies.
        max_bytes: Upper bound on the size of one reply.

    Attributes:
        parts: Number of parts fetched so far.
    """

    def __init__(self, grid: Grid, file: BinaryIO, max_bytes: int) -> None:
        self.parts = 0
        self._grid = grid
        self._file = file
        self._max_bytes = max_bytes
        self._announced: dict[str, _Announced] = {}

    def reply(self, message_id: str) -> Message | None:
        """Return the reply to a message, or None while it is incomplete.

        Flower's parser may raise further errors for a malformed reply.

        Raises:
            ReplyLost: If the SuperLink no longer holds the reply.
            ValueError: If the reply has too many parts or bytes, or is no message.
        """
        if not isinstance(self._grid, HttpGrid):
            return next(iter(self._grid.pull_messages([message_id])), None)
        found = self._announced.get(message_id) or self._look(self._grid, message_id)
        if found is None or not self._fetch(self._grid, found):
            return None
        contents = {}
        for part, (start, length) in found.held.items():
            self._file.seek(start)
            contents[part] = self._file.read(length)
        self.forget(message_id)
        if not self._announced:
            self._file.truncate(0)
        message = inflate_object_from_contents(found.reply_id, contents)
        if not isinstance(message, Message):
            raise ValueError("the reply is not a message")
        set_message_id(message, found.reply_id)
        return message

    def forget(self, message_id: str) -> None:
        """Delete the announced reply to a message, if any, from the SuperLink."""
        found = self._announced.pop(message_id, None)
        if found is not None:
            forget(self._grid, found.reply_id)

    def _look(self, grid: HttpGrid, message_id: str) -> _Announced | None:
        """Return the announcement of a reply, if any. The SuperLink returns each announcement only once."""
        told = runtime_client(grid).PullMessages(PullAppMessagesRequest(message_ids=[message_id]))
        for proto, tree in zip(told.messages_list, told.message_object_trees, strict=True):
            parts = list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))
            found = _Announced(proto.metadata.message_id, parts[::-1], {})
            self._announced[message_id] = found
            if len(parts) > MAX_REPLY_PARTS:
                raise ValueError(f"the reply has {len(parts)} parts: expected at most {MAX_REPLY_PARTS}")
            return found
        return None

    def _fetch(self, grid: HttpGrid, found: _Announced) -> bool:
        """Fetch some of the parts that have arrived, and return whether the reply is complete."""
        for _ in range(min(_PARTS_AT_ONCE, len(found.missing))):
            request = PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=found.missing[-1])
            told = runtime_client(grid).PullObject(request)
            if not told.object_found:
                raise ReplyLost
            if not told.object_available:
                return False
            found.num_bytes += len(told.object_content)
            if found.num_bytes > self._max_bytes:
                raise ValueError(
                    f"the reply has {found.num_bytes} bytes or more: expected at most {self._max_bytes}"
                )
            self.parts += 1
            start = self._file.seek(0, 2)
            found.held[found.missing.pop()] = start, self._file.write(told.object_content)
        return not found.missing
