"""Inspect all replies of a round before the first of them is used, with one reply in memory at a time."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flwr.app import RecordDict

from fedaigc.device.replies import Failure
from fedaigc.federation.server.exchange import Waiting
from fedaigc.flower_private import recorddict_to_proto

Reply = tuple[int, RecordDict | Failure]


def looked_at(
    replies: Iterable[Reply], look: Callable[[Iterator[Reply]], None], folder: Path | None
) -> Iterator[Reply]:
    """Pass all replies to `look`, then yield them again in the same order.

    Args:
        replies: Client and reply of each message.
        look: Called once with an iterator over all replies.
        folder: Folder on disk for the replies, as in `exchange`.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        waiting = Waiting(file)
        order: list[int] = []

        def kept() -> Iterator[Reply]:
            for client, reply in replies:
                order.append(client)
                if isinstance(reply, Failure):
                    waiting.keep(str(client), reply)
                else:
                    waiting.keep(str(client), recorddict_to_proto(reply).SerializeToString())
                yield client, reply

        look(kept())
        for client in order:
            yield client, waiting.pop(str(client))
