"""The edges in a generation: which one served a group, and what crosses the backhaul.

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
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.wire.ledger import KINDS
from fedaigc.federation.wire.messages import shared_state_record

# the kind under which a ledger counts the reports of devices on their tasks
_REPORTS = ("metrics",)


def per_edge(config: FederationConfig) -> bool:
    """Return whether each edge serves its own devices."""
    return config.generation.topology == "edges"


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
