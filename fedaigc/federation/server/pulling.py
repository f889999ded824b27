"""Fetching replies from the SuperLink part by part, so that no device holds up the replies of others.

A device announces a reply with the list of its parts, and sends these afterwards. Flower's own grid waits for
them once a reply is announced, for more than an hour where one comes now and then, and takes as many and as
large ones as are announced. Whoever else answers in that time is heard too late. Here a reply whose parts are
not there yet is asked for again later; its parts lie on disk until then, and their bytes are bounded.
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

# of one reply, before the others are looked at again
_PARTS_AT_ONCE = 32


class ReplyLost(Exception):
    """A reply whose parts never came, or came too late: there is nothing more to wait for."""


def largest_reply(orders: Sequence[tuple[int, RecordDict]]) -> int:
    """How many bytes a reply to any of these orders may have."""
    largest = max((_array_bytes(content) for _, content in orders), default=0)
    return max(MIN_REPLY_BYTES, REPLY_BYTES_RATIO * largest)


def _array_bytes(content: RecordDict) -> int:
    # an update may be in a wider number format than its order, and have tensors beside the weights
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


@dataclass(eq=False)
class _Announced:
    """A reply of which not all parts are there. missing: their ids, the last first. held: where they lie."""

    reply_id: str
    missing: list[str]
    held: dict[str, tuple[int, int]]
    num_bytes: int = 0


class Pulls:
    """The replies of one exchange that are on their way.

    file: for parts; max_bytes: of one reply. parts: how many were fetched so far.
    """

    def __init__(self, grid: Grid, file: BinaryIO, max_bytes: int) -> None:
        self.parts = 0
        self._grid = grid
        self._file = file
        self._max_bytes = max_bytes
        self._announced: dict[str, _Announced] = {}

    def reply(self, message_id: str) -> Message | None:
        """The reply to a message; None while it is not there as a whole.

        Raises ReplyLost, ValueError for more parts or bytes than a reply has, and what Flower raises for one
        that it cannot read.
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
            raise ValueError("a reply that is no message")
        set_message_id(message, found.reply_id)
        return message

    def forget(self, message_id: str) -> None:
        """Have the SuperLink delete what it holds of a reply, if one was announced."""
        found = self._announced.pop(message_id, None)
        if found is not None:
            forget(self._grid, found.reply_id)

    def _look(self, grid: HttpGrid, message_id: str) -> _Announced | None:
        """The reply as it is announced, which the SuperLink tells once."""
        told = runtime_client(grid).PullMessages(PullAppMessagesRequest(message_ids=[message_id]))
        for proto, tree in zip(told.messages_list, told.message_object_trees, strict=True):
            parts = list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))
            found = _Announced(proto.metadata.message_id, parts[::-1], {})
            self._announced[message_id] = found
            if len(parts) > MAX_REPLY_PARTS:
                raise ValueError(f"a reply of {len(parts)} parts: at most {MAX_REPLY_PARTS}")
            return found
        return None

    def _fetch(self, grid: HttpGrid, found: _Announced) -> bool:
        """Fetch some of the parts that are there; whether none is missing."""
        for _ in range(min(_PARTS_AT_ONCE, len(found.missing))):
            request = PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=found.missing[-1])
            told = runtime_client(grid).PullObject(request)
            if not told.object_found:
                raise ReplyLost
            if not told.object_available:
                return False
            found.num_bytes += len(told.object_content)
            if found.num_bytes > self._max_bytes:
                raise ValueError(f"a reply of {found.num_bytes} bytes and more: at most {self._max_bytes}")
            self.parts += 1
            start = self._file.seek(0, 2)
            found.held[found.missing.pop()] = start, self._file.write(told.object_content)
        return not found.missing
