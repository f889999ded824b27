"""Who takes part: Flower's random node ids, mapped to partitions by an opening query."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp.grid import Grid

from fedaigc.device.report import Failure
from fedaigc.errors import UserError
from fedaigc.federation.messages import BODY, Ask, failure_in, values_of

_POLL_S = 0.5
_PULL_S = 0.05

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Refusal:
    """A node that takes no part, and why, in words of the server."""

    node_id: int
    partition: int | None
    reason: str


class Roster:
    """The partitions that answered with the server's base model, and how to ask them.

    Replies come back by partition, whoever was first: nothing that is computed from them can depend on node
    ids or on the order of arrival. `progress` is called with a label, the replies that are in, and all that
    are due.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[int, int],
        refused: Sequence[Refusal],
        progress: Progress | None = None,
    ) -> None:
        self._grid = grid
        self._nodes = dict(sorted(nodes.items()))
        self._progress = progress
        self.refused = refused

    @property
    def partitions(self) -> list[int]:
        """The partitions that take part, sorted."""
        return list(self._nodes)

    def ask(
        self, kind: Ask, contents: Mapping[int, RecordDict], label: str
    ) -> dict[int, RecordDict | Failure]:
        """Send one message to each partition and wait for all replies; they come in partition order."""
        partitions = sorted(contents)
        replies = self.ask_many(kind, [(partition, contents[partition]) for partition in partitions], label)
        return dict(zip(partitions, replies, strict=True))

    def ask_many(
        self, kind: Ask, orders: Sequence[tuple[int, RecordDict]], label: str
    ) -> list[RecordDict | Failure]:
        """Send messages, several to a partition if need be; the replies come in the order of the messages.

        A client that reports an error, fails or does not answer is a `Failure` in its place.
        """
        addressed = [(self._nodes[partition], content) for partition, content in orders]
        return exchange(self._grid, kind, addressed, label, self._progress)


def exchange(
    grid: Grid,
    kind: Ask,
    orders: Sequence[tuple[int, RecordDict]],
    label: str,
    progress: Progress | None = None,
) -> list[RecordDict | Failure]:
    """Send each content to its node and return the replies in the order of `orders`."""
    # a reply carries the group id of the message that it answers
    pending = set(
        grid.push_messages(
            [
                Message(content, node, kind.value, group_id=str(index))
                for index, (node, content) in enumerate(orders)
            ]
        )
    )
    replies: dict[str, Message] = {}
    while pending:
        arrived = list(grid.pull_messages(pending))
        for reply in arrived:
            pending.discard(reply.metadata.reply_to_message_id)
            replies[reply.metadata.group_id] = reply
            if progress is not None:
                progress(label, len(replies), len(orders))
        if not arrived:
            time.sleep(_PULL_S)
    return [_content(replies.get(str(index))) for index in range(len(orders))]


def open_roster(
    grid: Grid,
    *,
    num_clients: int,
    base_hash: str,
    timeout_s: float = 120.0,
    progress: Progress | None = None,
) -> Roster:
    """Wait for `num_clients` nodes, ask each for its partition and base model, and keep those that fit.

    A client with another base model, an id that is no partition, or one that another node has already, is
    refused. Raises UserError, naming both fingerprints, when nobody is left, and when too few nodes come in
    time.
    """
    nodes = _wait_for_nodes(grid, num_clients, timeout_s)
    replies = exchange(grid, Ask.HELLO, [(node, RecordDict()) for node in nodes], "hello", progress)
    accepted: dict[int, int] = {}
    refused: list[Refusal] = []
    for node, content in zip(nodes, replies, strict=True):
        if isinstance(content, Failure):
            refused.append(Refusal(node, None, f"its hello failed: {content.value}"))
            continue
        partition, base = _introduction(content)
        if type(partition) is not int or not 0 <= partition < num_clients:
            refused.append(Refusal(node, None, f"partition {partition!r} is none of 0 to {num_clients - 1}"))
        elif base != base_hash:
            reason = f"partition {partition} has base model {base}, the server {base_hash}"
            refused.append(Refusal(node, partition, reason))
        elif partition in accepted:
            refused.append(Refusal(node, partition, f"partition {partition} is there already"))
        else:
            accepted[partition] = node
    if not accepted:
        reasons = "\n".join(f"  {refusal.reason}" for refusal in refused)
        raise UserError(f"no client can take part:\n{reasons}")
    return Roster(grid, accepted, refused, progress)


def _wait_for_nodes(grid: Grid, num_clients: int, timeout_s: float) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < num_clients:
        if time.monotonic() > deadline:
            raise UserError(f"{len(nodes)} of {num_clients} clients came within {timeout_s:.0f} s")
        time.sleep(_POLL_S)
    return nodes


def _content(reply: Message | None) -> RecordDict | Failure:
    # the text of a Flower error may hold what the client's exception said: it is not read
    if reply is None or reply.has_error():
        return Failure.UNREACHABLE
    try:
        return failure_in(reply.content) or reply.content
    except (KeyError, TypeError, ValueError):
        return Failure.INTERNAL


def _introduction(content: RecordDict) -> tuple[object, object]:
    """Partition and base as the node claims them; None for what is missing."""
    values = values_of(content) if BODY in content else {}
    return values.get("partition"), values.get("base")
