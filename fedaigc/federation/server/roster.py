"""The clients of a run: an opening query maps Flower's random node ids to client numbers."""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import RecordDict
from flwr.serverapp.grid import Grid

from fedaigc.bounds import FINGERPRINT, MAX_EXAMPLES
from fedaigc.counting import counted
from fedaigc.device.replies import Failure
from fedaigc.errors import UserError
from fedaigc.federation.progress import OnProgress, Stage
from fedaigc.federation.server.exchange import exchange
from fedaigc.federation.software import Software, told_software
from fedaigc.federation.wire.ledger import Ledger
from fedaigc.federation.wire.message_bounds import quoted
from fedaigc.federation.wire.messages import BODY, CLIENT, Ask, values_of

_POLL_S = 0.5
# nodes of a simulation connect at once: a number that stays below that of the clients will not grow
_SETTLED_S = 8.0


@dataclass(frozen=True)
class Refusal:
    """A node that is excluded from the run.

    Attributes:
        node_id: Flower's id of the node.
        client: The client number that the node claims, or None if the claim is not trusted.
        reason: The reason in the server's own words, so that no text of a client enters the record.
        passing: Whether the node only failed to answer, and may be admitted later.
    """

    node_id: int
    client: int | None
    reason: str
    passing: bool = False


@dataclass(frozen=True)
class Admission:
    """The conditions under which a node is admitted.

    Attributes:
        num_clients: Number of clients of the run. Valid client numbers are 0 to num_clients - 1.
        base_hash: Fingerprint of the server's base model.
        bindings: The client number that each node id may claim. None binds no nodes.
        timeout_s: Seconds to wait for nodes to connect, and again for their reply to the opening query.
    """

    num_clients: int
    base_hash: str
    bindings: Mapping[str, int] | None
    timeout_s: float


class Roster:
    """The clients that take part in a run, and the means to send them orders.

    Replies are returned in client order, so that no result depends on node ids or on the order of arrival.

    Args:
        grid: The grid that sends the messages.
        nodes: Node id of each client.
        refused: The excluded nodes.
        progress: Called after each reply.
        software: Reported software versions by client.
        admission: The conditions for devices that connect later. None admits no further device.
        folder: Folder on disk for replies, as in `exchange`.
        num_examples: Reported number of images by client.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[int, int],
        refused: Sequence[Refusal],
        progress: OnProgress | None = None,
        software: Mapping[int, Software] | None = None,
        admission: "Admission | None" = None,
        folder: Path | None = None,
        num_examples: Mapping[int, int] | None = None,
    ) -> None:
        self._grid = grid
        self.folder = folder
        self._nodes = dict(sorted(nodes.items()))
        self._progress = progress
        self._admission = admission
        self.refused = list(refused)
        self.ledger = Ledger()
        # what crosses between the edges of a simulation and the server
        self.backhaul = Ledger()
        self.software = dict(sorted((software or {}).items()))
        self.num_examples = dict(sorted((num_examples or {}).items()))

    @property
    def clients(self) -> list[int]:
        """Return the participating clients, sorted."""
        return list(self._nodes)

    @property
    def absent(self) -> list[int]:
        """Return the clients of bound devices that have not been admitted yet, sorted."""
        bindings = self._admission.bindings if self._admission is not None else None
        return sorted(set((bindings or {}).values()) - self._nodes.keys())

    def admit(self) -> None:
        """Admit the bound devices that have connected since the last call. Without bindings, do nothing.

        Admitted clients remain: a device that reconnects keeps its node id and its client number.
        """
        if self._admission is None or self._admission.bindings is None:
            return
        known = {*self._nodes.values(), *(refusal.node_id for refusal in self.refused)}
        bound = {int(node) for node in self._admission.bindings}
        new = sorted(set(self._grid.get_node_ids()) & bound - known)
        if new:
            found = _introduced(self._grid, new, self._admission, self._nodes.keys(), self._progress)
            self._nodes = dict(sorted((self._nodes | found.nodes).items()))
            self.software = dict(sorted((self.software | found.software).items()))
            self.num_examples = dict(sorted((self.num_examples | found.num_examples).items()))
            # a node that did not answer in time is asked again at the next call
            self.refused += [refusal for refusal in found.refused if not refusal.passing]

    def ask(
        self,
        kind: Ask,
        contents: Mapping[int, RecordDict],
        stage: Stage | None,
        deadline_s: float | None = None,
    ) -> dict[int, RecordDict | Failure]:
        """Send one message to each client and return all replies in client order.

        Args:
            kind: The kind of all messages.
            contents: Content of the message to each client.
            stage: The stage of the reported progress. None reports no progress.
            deadline_s: Seconds after which a missing reply is `Failure.LATE`. None waits without limit.
        """
        return dict(self.ask_each(kind, contents, stage, deadline_s))

    def ask_each(
        self,
        kind: Ask,
        contents: Mapping[int, RecordDict],
        stage: Stage | None,
        deadline_s: float | None = None,
    ) -> Iterator[tuple[int, RecordDict | Failure]]:
        """Send one message to each client and yield the replies in client order, one at a time.

        The arguments are those of `ask`. Replies that arrive before their turn are stored on disk.
        """
        clients = sorted(contents)
        orders = [(self._nodes[client], contents[client]) for client in clients]
        return zip(clients, self._exchange(kind, orders, stage, deadline_s), strict=True)

    def ask_many(
        self,
        kind: Ask,
        orders: Sequence[tuple[int, RecordDict]],
        stage: Stage,
        deadline_s: float | None = None,
    ) -> list[RecordDict | Failure]:
        """Send any number of messages to each client and return the replies in the order of the messages.

        Args:
            kind: The kind of all messages.
            orders: Client and content of each message.
            stage: The stage of the reported progress.
            deadline_s: Seconds after which a missing reply is `Failure.LATE`. None waits without limit.

        Returns:
            One reply per message, or a `Failure` if the client reports an error or does not answer in time.
        """
        addressed = [(self._nodes[client], content) for client, content in orders]
        return list(self._exchange(kind, addressed, stage, deadline_s))

    def _exchange(
        self,
        kind: Ask,
        orders: Sequence[tuple[int, RecordDict]],
        stage: Stage | None,
        deadline_s: float | None,
    ) -> Iterator[RecordDict | Failure]:
        return exchange(self._grid, kind, orders, stage, self._progress, self.ledger, deadline_s, self.folder)


def open_roster(
    grid: Grid,
    *,
    num_clients: int,
    base_hash: str,
    timeout_s: float = 120.0,
    progress: OnProgress | None = None,
    bindings: Mapping[str, int] | None = None,
    folder: Path | None = None,
) -> Roster:
    """Wait for the nodes, ask each for its client number and base model, and admit those that match.

    A node is refused if its base model differs, if its client number is invalid or taken, or if its number of
    images is out of range. Software versions are recorded, but do not lead to a refusal.

    Args:
        grid: The grid that sends the messages.
        num_clients: Number of clients of the run.
        base_hash: Fingerprint of the server's base model.
        timeout_s: Seconds to wait for nodes to connect, and, with `bindings`, again for their replies.
        progress: Called after each reply.
        bindings: The client number that each node id may claim. Nodes that claim another number, or that are
            not listed, are refused, and the run starts without devices that do not connect in time.
        folder: Folder on disk for replies, as in `exchange`.

    Raises:
        UserError: If no node is admitted, or, without bindings, if too few nodes connect in time, or their number
            stays too small for some seconds.
    """
    admission = Admission(num_clients, base_hash, bindings, timeout_s)
    expected = num_clients if bindings is None else len(bindings)
    enough = 1 if bindings is not None else expected
    nodes = _wait_for_nodes(
        grid, expected, timeout_s, enough, settled_s=_SETTLED_S if bindings is None else timeout_s
    )
    found = _introduced(grid, nodes, admission, (), progress)
    if not found.nodes:
        reasons = "\n".join(f"  {refusal.reason}" for refusal in found.refused)
        raise UserError(f"no client can take part:\n{reasons}")
    lasting = [refusal for refusal in found.refused if not refusal.passing or bindings is None]
    return Roster(grid, found.nodes, lasting, progress, found.software, admission, folder, found.num_examples)


@dataclass(frozen=True)
class _Introduced:
    """The result of an opening query: node ids, versions and numbers of images by client, and the refusals."""

    nodes: dict[int, int]
    software: dict[int, Software]
    num_examples: dict[int, int]
    refused: list[Refusal]


def _introduced(
    grid: Grid,
    nodes: Sequence[int],
    admission: Admission,
    taken: Collection[int],
    progress: OnProgress | None,
) -> _Introduced:
    """Send the opening query to `nodes` and check the replies. `taken` holds the clients admitted before."""
    orders = [(node, RecordDict()) for node in nodes]
    # the devices of a simulation are there: on a busy machine, their process takes minutes to start
    deadline_s = None if admission.bindings is None else admission.timeout_s
    replies = list(exchange(grid, Ask.HELLO, orders, Stage("hello"), progress, deadline_s=deadline_s))
    accepted: dict[int, int] = {}
    software: dict[int, Software] = {}
    num_examples: dict[int, int] = {}
    refused: list[Refusal] = []
    num_clients, base_hash, bindings = admission.num_clients, admission.base_hash, admission.bindings
    for node, content in zip(nodes, replies, strict=True):
        if isinstance(content, Failure):
            refused.append(Refusal(node, None, f"the opening query failed: {content.value}", passing=True))
            continue
        client, base, shown = _introduction(content)
        if type(client) is not int or not 0 <= client < num_clients:
            reason = f"client {quoted(client)}: expected 0 to {num_clients - 1}"
            refused.append(Refusal(node, None, reason))
        elif base != base_hash:
            told = base if isinstance(base, str) and re.fullmatch(FINGERPRINT, base) else "unknown"
            reason = f"client {client} has base model {told}, the server {base_hash}"
            refused.append(Refusal(node, client, reason))
        elif bindings is not None and bindings.get(str(node)) != client:
            refused.append(Refusal(node, None, f"client {client} is not bound to this node's key"))
        elif client in accepted or client in taken:
            refused.append(Refusal(node, client, f"client {client} is already connected"))
        elif type(shown) is not int or not 0 <= shown <= MAX_EXAMPLES:
            reason = f"client {client} reports {quoted(shown)} pictures: expected 0 to {MAX_EXAMPLES}"
            refused.append(Refusal(node, client, reason))
        else:
            accepted[client] = node
            software[client] = told_software(values_of(content))
            num_examples[client] = shown
    return _Introduced(accepted, software, num_examples, refused)


def _wait_for_nodes(
    grid: Grid, num_clients: int, timeout_s: float, enough: int, settled_s: float
) -> list[int]:
    """Return all nodes once `num_clients` are connected, or, after the timeout, those that are if `enough`.

    Some nodes, too few, whose number has not grown for `settled_s` seconds are refused before the timeout.
    """
    began = grown = time.monotonic()
    count = 0
    while len(nodes := sorted(grid.get_node_ids())) < num_clients:
        now = time.monotonic()
        if len(nodes) > count:
            count, grown = len(nodes), now
        timed_out = now > began + timeout_s
        if timed_out and len(nodes) >= enough:
            return nodes
        if timed_out or (0 < len(nodes) < enough and now > grown + settled_s):
            raise UserError(
                f"{len(nodes)} of {counted(num_clients, 'client')} connected within {now - began:.0f} s; a simulation "
                f"needs as many nodes as clients: `flwr run . --federation-config num-supernodes={num_clients}`"
            )
        time.sleep(_POLL_S)
    return nodes


def _introduction(content: RecordDict) -> tuple[object, object, object]:
    """Return client, base model and number of images as the node claims them.

    A missing client or base model is None. A missing number of images, as from earlier versions, is 0.
    """
    values = values_of(content) if BODY in content else {}
    return values.get(CLIENT), values.get("base"), values.get("num_examples", 0)
