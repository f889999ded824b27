"""A look at all of a round's replies before the first of them is used, in the memory of one."""

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
    """Have `look` go through all replies, and yield them again in their order. folder: see `exchange`."""
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
