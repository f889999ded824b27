"""The edges in a generation: groups do not cross edges, and what of it crosses the backhaul.

With the topology "edge", one edge server serves all devices, and the edges forward every message to it. With "edges",
each edge groups the prompts of its own devices and runs their shared steps: signatures, offers, conditionings and
packets stay on its side. Only the shared state, once for each edge, and the reports cross the backhaul. So it is with
"pair" and "cluster", where devices share among themselves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fedaigc.collaboration.results import GroupRecord
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.node_sharing import groups_of
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.wire.ledger import KINDS
from fedaigc.federation.wire.messages import shared_state_record
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group

# the kind under which a ledger counts the reports of devices on their tasks
_REPORTS = ("metrics",)


def per_edge(config: FederationConfig) -> bool:
    """Return whether each edge serves its own devices."""
    return config.generation.topology == "edges"


def groups_by_edge(
    signatures: Mapping[str, Disclosed | None], owners: Mapping[str, int], config: FederationConfig
) -> list[Group]:
    """Group the waiting tasks, those of each edge by themselves if each serves its own devices.

    Args:
        signatures: Task id -> what its device disclosed.
        owners: Task id -> its client.
        config: The configuration.

    Raises:
        UserError: As `groups_of`.
    """
    if not per_edge(config):
        return groups_of(signatures, owners, config)
    found: list[Group] = []
    for edge in sorted({config.edge(client) for client in owners.values()}):
        own = {task: client for task, client in owners.items() if config.edge(client) == edge}
        found += groups_of({task: signatures[task] for task in own if task in signatures}, own, config)
    return found


def with_edges(
    records: Sequence[GroupRecord], owners: Mapping[str, int], config: FederationConfig
) -> tuple[GroupRecord, ...]:
    """Return the records of groups with the edge that served each, if each serves its own devices."""
    if not per_edge(config):
        return tuple(records)
    return tuple(
        record.model_copy(update={"edge": config.edge(owners[record.tasks[0].task_id])}) for record in records
    )


@contextmanager
def forwarding(roster: Roster, config: FederationConfig) -> Iterator[None]:
    """Within the context of a generation, count in the backhaul what the edges forward.

    These are all messages to one edge server behind them, and only reports with any other topology.
    """
    if config.edges is None:
        yield
        return
    with roster.ledger.forwarding(
        roster.backhaul, KINDS if config.generation.topology == "edge" else _REPORTS
    ):
        yield


def send_states(
    roster: Roster, shared: SharedState, clients: Iterable[int], config: FederationConfig
) -> None:
    """Count the shared state that the server sends to each edge that serves some of these clients."""
    if config.edges is not None and config.generation.topology != "edge":
        for _ in {config.edge(client) for client in clients}:
            roster.backhaul.add("down", shared_state_record(shared))
