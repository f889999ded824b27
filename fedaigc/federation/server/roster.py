"""Who takes part: Flower's random node ids, mapped to clients by an opening query."""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import RecordDict
from flwr.serverapp.grid import Grid

from fedaigc.bounds import FINGERPRINT, MAX_EXAMPLES
from fedaigc.device.replies import Failure
from fedaigc.errors import UserError
from fedaigc.federation.progress import OnProgress, Stage
from fedaigc.federation.server.exchange import exchange
from fedaigc.federation.software import Software, told_software
from fedaigc.federation.wire.ledger import Ledger
from fedaigc.federation.wire.message_bounds import quoted
from fedaigc.federation.wire.messages import BODY, CLIENT, Ask, values_of

_POLL_S = 0.5


@dataclass(frozen=True)
class Refusal:
    """A node that takes no part, and why, in words of the server. passing: it did not answer, but may yet."""

    node_id: int
    client: int | None
    reason: str
    passing: bool = False


@dataclass(frozen=True)
class Admission:
    """What a node must say to be let in.

    bindings: the client that each node may speak for; None where nodes are not bound. timeout_s: how long
    nodes may take to come, and then to say hello.
    """

    num_clients: int
    base_hash: str
    bindings: Mapping[str, int] | None
    timeout_s: float


class Roster:
    """The clients that answered with the server's base model, and how to ask them.

    Replies come back by client, whoever was first: nothing that is computed from them can depend on node ids
    or on the order of arrival. `progress` is called with each reply. software: what each client said it
    computes with. num_examples: how many pictures each one showed. folder: see `exchange`.
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
        self.software = dict(sorted((software or {}).items()))
        self.num_examples = dict(sorted((num_examples or {}).items()))

    @property
    def clients(self) -> list[int]:
        """The clients that take part, sorted."""
        return list(self._nodes)

    @property
    def absent(self) -> list[int]:
        """The clients of bound devices that have not been let in (yet), sorted."""
        bindings = self._admission.bindings if self._admission is not None else None
        return sorted(set((bindings or {}).values()) - self._nodes.keys())

    def admit(self) -> None:
        """Let in the bound devices that came since the last look; nothing where nodes are not bound.

        Whoever was in stays: a device that is away and comes back has its node and its client.
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
            # who did not answer in time may yet
            self.refused += [refusal for refusal in found.refused if not refusal.passing]

    def ask(
        self,
        kind: Ask,
        contents: Mapping[int, RecordDict],
        stage: Stage | None,
        deadline_s: float | None = None,
    ) -> dict[int, RecordDict | Failure]:
        """Send one message to each client and wait for all replies; they come in client order.

        stage: of the progress that is told; None: none is told.
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

        Replies wait for their turn on disk. Who has not answered `deadline_s` seconds after the messages went
        out is a `Failure.LATE`.
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
        """Send messages, several to a client if need be; the replies come in the order of the messages.

        A client that reports an error, fails or does not answer in time is a `Failure` in its place.
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
    """Wait for `num_clients` nodes, ask each for its client and base model, and keep those that fit.

    A client with another base model, an id that is no client, or one that another node has already, is
    refused; other versions of the software are kept and refuse nobody. bindings: the client that each node
    may speak for; whoever claims another, or is not in it, is refused, and the run begins without who is not
    there in time. folder: see `exchange`. Raises UserError, naming both fingerprints, when nobody is left,
    and without bindings when too few nodes come in time.
    """
    admission = Admission(num_clients, base_hash, bindings, timeout_s)
    expected = num_clients if bindings is None else len(bindings)
    nodes = _wait_for_nodes(grid, expected, timeout_s, enough=1 if bindings is not None else expected)
    found = _introduced(grid, nodes, admission, (), progress)
    if not found.nodes:
        reasons = "\n".join(f"  {refusal.reason}" for refusal in found.refused)
        raise UserError(f"no client can take part:\n{reasons}")
    lasting = [refusal for refusal in found.refused if not refusal.passing or bindings is None]
    return Roster(grid, found.nodes, lasting, progress, found.software, admission, folder, found.num_examples)


@dataclass(frozen=True)
class _Introduced:
    """nodes, software and num_examples: by client, of those that may take part."""

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
    """Have nodes say who they are. taken: clients that are there already."""
    orders = [(node, RecordDict()) for node in nodes]
    replies = list(
        exchange(grid, Ask.HELLO, orders, Stage("hello"), progress, deadline_s=admission.timeout_s)
    )
    accepted: dict[int, int] = {}
    software: dict[int, Software] = {}
    num_examples: dict[int, int] = {}
    refused: list[Refusal] = []
    num_clients, base_hash, bindings = admission.num_clients, admission.base_hash, admission.bindings
    for node, content in zip(nodes, replies, strict=True):
        if isinstance(content, Failure):
            refused.append(Refusal(node, None, f"its hello failed: {content.value}", passing=True))
            continue
        client, base, shown = _introduction(content)
        if type(client) is not int or not 0 <= client < num_clients:
            reason = f"client {quoted(client)} is none of 0 to {num_clients - 1}"
            refused.append(Refusal(node, None, reason))
        elif base != base_hash:
            told = base if isinstance(base, str) and re.fullmatch(FINGERPRINT, base) else "unknown"
            reason = f"client {client} has base model {told}, the server {base_hash}"
            refused.append(Refusal(node, client, reason))
        elif bindings is not None and bindings.get(str(node)) != client:
            refused.append(Refusal(node, None, f"client {client} is not bound to this node's key"))
        elif client in accepted or client in taken:
            refused.append(Refusal(node, client, f"client {client} is there already"))
        elif type(shown) is not int or not 0 <= shown <= MAX_EXAMPLES:
            reason = f"client {client} shows {quoted(shown)} pictures, expected 0 to {MAX_EXAMPLES}"
            refused.append(Refusal(node, client, reason))
        else:
            accepted[client] = node
            software[client] = told_software(values_of(content))
            num_examples[client] = shown
    return _Introduced(accepted, software, num_examples, refused)


def _wait_for_nodes(grid: Grid, num_clients: int, timeout_s: float, enough: int) -> list[int]:
    """All nodes, as soon as all are there; after the timeout those that are, if they are `enough`."""
    deadline = time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < num_clients:
        if time.monotonic() > deadline and len(nodes) >= enough:
            return nodes
        if time.monotonic() > deadline:
            raise UserError(f"{len(nodes)} of {num_clients} clients came within {timeout_s:.0f} s")
        time.sleep(_POLL_S)
    return nodes


def _introduction(content: RecordDict) -> tuple[object, object, object]:
    """Client, base and number of pictures as the node claims them.

    None for a missing client or base; 0 pictures for a device whose version does not show them.
    """
    values = values_of(content) if BODY in content else {}
    return values.get(CLIENT), values.get("base"), values.get("num_examples", 0)
